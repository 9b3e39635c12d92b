"""`spml-dist train`: launch or resume a training run."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spml_dist.cli.arguments import add_verb
from spml_dist.config import Config, differences, dump, load
from spml_dist.config.notices import unreached_dilations
from spml_dist.errors import ConfigError, RunError

EXAMPLES = """\
examples:
  spml-dist train configs/quickstart.yaml
  spml-dist train configs/gid15_scribble.yaml engine.workers=1 schedule.steps=500 name=short
  spml-dist train configs/quickstart.yaml          # once more: goes on where it stopped
  spml-dist train configs/quickstart.yaml --alone  # this process alone, for a debugger
  torchrun --nproc-per-node 2 -m spml_dist train configs/quickstart.yaml

Ray starts on this machine by itself, or RAY_ADDRESS names a cluster. Under torchrun its processes are the
workers, without Ray. However it is launched, and with however many workers, the same run goes on. The run
folder is OUTPUT/NAME: config.yaml, metrics.jsonl, train.log, checkpoints/, previews/, export/,
system/, mlflow.json, report.html.

Ctrl-C or SIGTERM saves after the next logged step and leaves with status 75 (torchrun has a status
of its own); a second one stops at once.
"""

FREE = (
    "engine.workers",
    "engine.zero_stage",
    "engine.device",
    "engine.threads",
    "stream.loader_processes",
    "stream.skip_corrupt",
    "stream.retry_seconds",
    "stream.cache",
    "checkpoint.",
    "tracking.",
    "evaluation.",
    "data.val",
    "data.test",
)
"""keys that may change between a run and its continuation: they do not change what is learnt"""


def add(subparsers) -> None:
    parser = add_verb(
        subparsers,
        "train",
        "train from packed shards; the same command resumes",
        "Train from packed shards on Ray workers with DeepSpeed. The same command resumes.",
        EXAMPLES,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every verb that trains takes."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="experiment, a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to it, by dotted key")
    parser.add_argument(
        "--alone",
        action="store_true",
        help="train in this process, without Ray and without DeepSpeed; engine.workers and engine.zero_stage "
        "then do not matter",
    )


def run(args: argparse.Namespace) -> int:
    config = absolute(load(args.config, args.overrides), Path.cwd())
    if launched(config, "segmenter", args.alone):
        folder = Path(config.output) / config.name
        split = next(name for name in ("val", "test", "train") if getattr(config.data, name))
        print(f"trained; evaluate with: spml-dist evaluate {short(folder)} --split {split}", flush=True)
    return 0


def launched(config: Config, network: str, alone: bool) -> bool:
    """Train a network ("segmenter" or "cam") into OUTPUT/NAME, to the end.

    Returns whether this process trained it and answers for the run: not where it was trained before, nor on
    torchrun's other ranks. Raises SpmlError for what a user can mend, Stopped for a run that saved.
    """
    folder = Path(config.output) / config.name
    launch = _alone if alone else _under_torchrun if "TORCHELASTIC_RUN_ID" in os.environ else _on_ray
    if launch is _alone and config.engine.precision == "bfloat16":
        raise ConfigError("engine.precision", "bfloat16", "--alone computes in float32 or float64")
    from spml_dist.cli.data import checked

    manifest = checked(config)
    _check_classes(config, manifest)  # first: a mistake must not claim the run folder
    payload = {"config": config.model_dump(mode="json"), "network": network}
    steps = finished(folder)
    over = steps is not None and steps >= config.schedule.steps
    if launch is _under_torchrun and int(os.environ["RANK"]) > 0:
        if over:  # rank 0 says so, and joins nobody
            return False
        for number in (signal.SIGINT, signal.SIGTERM):  # rank 0 answers for all
            signal.signal(number, signal.SIG_IGN)
        launch(config, folder, payload)
        return False
    claim(folder, config)
    print(f"run folder {folder}", flush=True)
    if network == "segmenter" and (notice := unreached_dilations(config)):
        print(f"spml-dist: {notice}", file=sys.stderr, flush=True)
    if over:
        _require_same_data(config, manifest, folder)
        print(f"already trained to step {steps}; for another run give another name=", flush=True)
        return False
    from spml_dist import cluster
    from spml_dist.train import stopping

    log = folder / "train.log"
    with _reported(folder), stopping.on_signals(folder), cluster.following(log, _show):
        launch(config, folder, payload)
    return True


def _on_ray(config: Config, folder: Path, payload: dict) -> None:
    from spml_dist import cluster
    from spml_dist.inference.device import chosen
    from spml_dist.train import stopping
    from spml_dist.train.worker import work

    print(f"starting Ray and {config.engine.workers} workers", flush=True)
    far = os.environ.get("RAY_ADDRESS")  # its nodes may have GPUs where this one has none
    cluster.train(
        work,
        payload,
        name=config.name,
        workers=config.engine.workers,
        device=config.engine.device if far else chosen(config.engine.device),
        storage=folder / "ray",
        say=_show,
        stopped=lambda: stopping.requested(folder),
    )


def _under_torchrun(config: Config, folder: Path, payload: dict) -> None:
    """This process is one of torchrun's. Rank 0 alone has claimed the folder and answers to signals."""
    from spml_dist import comm
    from spml_dist.inference.device import chosen
    from spml_dist.train.worker import work

    device = chosen(config.engine.device)
    comm.join("nccl" if device == "cuda" else "gloo")
    work(payload | {"device": device})
    comm.leave()


def _alone(config: Config, folder: Path, payload: dict) -> None:
    from spml_dist.inference.device import chosen
    from spml_dist.train.worker import work

    work(payload | {"device": chosen(config.engine.device)})


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """Write RUN/report.html however the block ends, if there is anything to show."""
    try:
        yield
    finally:
        from spml_dist.report import write_report

        try:
            if begun(folder):
                print(f"report {short(write_report(folder))}", flush=True)
        except (RunError, OSError) as problem:  # never in the place of what ended the training
            print(f"no report: {problem}", file=sys.stderr)


def absolute(config: Config, root: Path) -> Config:
    """The configuration with every path absolute, so that workers anywhere on the file system agree."""
    from spml_dist.files.address import scheme
    from spml_dist.tracking.mlflow_client import absolute_uri

    def path(place: str | None) -> str | None:
        return place if place is None or scheme(place) else os.path.abspath(root / place)

    data = {split: path(place) for split, place in config.data.model_dump().items()}
    return config.model_copy(
        update={
            "output": path(config.output),
            "data": config.data.model_copy(update=data),
            "stream": config.stream.model_copy(update={"cache": path(config.stream.cache)}),
            "model": config.model.model_copy(update={"weights": path(config.model.weights)}),
            "tracking": config.tracking.model_copy(update={"uri": absolute_uri(config.tracking.uri, root)}),
        }
    )


def claim(folder: Path, config: Config) -> None:
    """Make the run folder and write config.yaml, or check that it belongs to this configuration.

    A folder where no step was ever logged is free: what stopped that run is perhaps what is changed now.
    """
    known = folder / "config.yaml"
    if known.exists() and begun(folder):
        free = (
            FREE if config.loss.reduction == "global" else FREE[1:]
        )  # with per_rank, workers are learnt from
        other = [(key, a, b) for key, a, b in differences(load(known), config) if not key.startswith(free)]
        if other:
            keys = ", ".join(f"{key} ({a} there, {b} here)" for key, a, b in other[:5])
            raise RunError(
                f"{folder} belongs to another configuration", keys, "give another name= or remove it"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not begun(folder):
            (folder / "mlflow.json").unlink(missing_ok=True)  # MLflow's parameters cannot be changed
        aside = folder / "config.yaml.tmp"
        aside.write_text(dump(config), encoding="utf-8")
        os.replace(aside, known)
    except OSError as problem:
        raise RunError(f"{folder} cannot be written", problem.strerror, "choose another output=") from problem


def begun(folder: Path) -> bool:
    """Whether a step was logged."""
    metrics = folder / "metrics.jsonl"
    return metrics.exists() and metrics.stat().st_size > 0


def finished(folder: Path) -> int | None:
    """Step of the exported network, or None."""
    import json

    info = folder / "export" / "model.json"
    return json.loads(info.read_text(encoding="utf-8"))["step"] if info.exists() else None


def _require_same_data(config: Config, manifest, folder: Path) -> None:
    """A pack that was made anew is told from the one that the run has learnt, as when it is resumed."""
    from spml_dist.data.stream.loader import fingerprint, start_of
    from spml_dist.train import checkpoint

    try:
        last = checkpoint.latest(folder / "checkpoints")
    except RunError:  # removed, since a finished run needs none
        return
    if last:
        stream = config.stream
        now = fingerprint(manifest, stream.batch, config.seed, stream.window_shards)
        start_of(config.data.train, checkpoint.stream_state(last), now)


def _check_classes(config: Config, manifest) -> None:
    if not manifest.classes:
        raise ConfigError("data.train is a pack without classes", config.data.train, "pack with --classes")
    last = len(manifest.classes) - 1
    named = {
        "relations.cooccurrence.ignore_classes": config.relations.cooccurrence.ignore_classes,
        "stream.mirror_swaps": [label for pair in config.stream.mirror_swaps for label in pair],
    }
    for key, labels in named.items():
        if beyond := [label for label in labels if label > last]:
            raise ConfigError(f"{key} names no class of data.train", beyond, f"its class ids are 0 to {last}")


def _show(text: str) -> None:
    print(text, flush=True)
    sys.stdout.flush()


def short(folder: Path) -> str:
    """The folder as it is typed here."""
    return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)
