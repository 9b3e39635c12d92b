"""`spml-dist train`: launch or resume a training run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from spml_dist.config import Config, differences, dump, load
from spml_dist.errors import ConfigError, RunError

EXAMPLES = """\
examples:
  spml-dist train configs/quickstart.yaml
  spml-dist train configs/gid15_scribble.yaml engine.workers=1 schedule.steps=500 name=short
  spml-dist train configs/quickstart.yaml          # once more: goes on where it stopped

Ray starts on this machine by itself, or RAY_ADDRESS names a cluster. The run folder is OUTPUT/NAME:
config.yaml, metrics.jsonl, train.log, checkpoints/, previews/, export/, mlflow.json.
"""

FREE = (
    "engine.threads",
    "stream.loader_processes",
    "checkpoint.",
    "tracking.",
    "evaluation.",
    "data.val",
    "data.test",
)
"""keys that may change between a run and its continuation: they do not change what is learnt"""


def add(subparsers) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train from packed shards; the same command resumes",
        description="Train from packed shards on Ray workers with DeepSpeed. The same command resumes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="experiment, a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to it, by dotted key")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    config = absolute(load(args.config, args.overrides), Path.cwd())
    folder = Path(config.output) / config.name
    from spml_dist.shards.manifest import read_manifest

    _check_classes(config, read_manifest(config.data.train))  # first: a mistake must not claim the run folder
    claim(folder, config)
    print(f"run folder {folder}", flush=True)
    steps = finished(folder)
    if steps is not None and steps >= config.schedule.steps:
        print(f"already trained to step {steps}; for another run give another name=", flush=True)
        return 0
    from spml_dist import jobs
    from spml_dist.engine.worker import work

    print(f"starting Ray and {config.engine.workers} workers", flush=True)
    with jobs.following(folder / "train.log", _show):
        jobs.train(
            work,
            {"config": config.model_dump(mode="json")},
            name=config.name,
            workers=config.engine.workers,
            gpu=_gpu(config),
            storage=folder / "ray",
        )
    print(f"trained; evaluate with: spml-dist evaluate {_short(folder)} --split val", flush=True)
    return 0


def absolute(config: Config, root: Path) -> Config:
    """The configuration with every path absolute, so that workers anywhere on the file system agree."""
    from spml_dist.engine.tracking import absolute_uri

    def path(place: str | None) -> str | None:
        return place if place is None or "://" in place else os.path.abspath(root / place)

    data = {split: path(place) for split, place in config.data.model_dump().items()}
    return config.model_copy(
        update={
            "output": path(config.output),
            "data": config.data.model_copy(update=data),
            "model": config.model.model_copy(update={"weights": path(config.model.weights)}),
            "tracking": config.tracking.model_copy(update={"uri": absolute_uri(config.tracking.uri, root)}),
        }
    )


def claim(folder: Path, config: Config) -> None:
    """Make the run folder and write config.yaml, or check that it belongs to this configuration."""
    known = folder / "config.yaml"
    if known.exists():
        other = [(key, a, b) for key, a, b in differences(load(known), config) if not key.startswith(FREE)]
        if other:
            keys = ", ".join(f"{key} ({a} there, {b} here)" for key, a, b in other[:5])
            raise RunError(
                f"{folder} belongs to another configuration", keys, "give another name= or remove it"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / "config.yaml.tmp"
        aside.write_text(dump(config), encoding="utf-8")
        os.replace(aside, known)
    except OSError as problem:
        raise RunError(f"{folder} cannot be written", problem.strerror, "choose another output=") from problem


def finished(folder: Path) -> int | None:
    """Step of the exported network, or None."""
    import json

    info = folder / "export" / "model.json"
    return json.loads(info.read_text(encoding="utf-8"))["step"] if info.exists() else None


def _check_classes(config: Config, manifest) -> None:
    last = len(manifest.classes) - 1
    beyond = [label for label in config.relations.cooccurrence.ignore_classes if label > last]
    if beyond:
        key = "relations.cooccurrence.ignore_classes names no class of data.train"
        raise ConfigError(key, beyond, f"its class ids are 0 to {last}")


def _gpu(config: Config) -> bool:
    if config.engine.device != "auto":
        return config.engine.device == "cuda"
    import torch

    return torch.cuda.is_available()


def _show(text: str) -> None:
    print(text, flush=True)
    sys.stdout.flush()


def _short(folder: Path) -> str:
    return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)
