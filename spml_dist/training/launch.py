"""A training from a configuration to its run folder: on Ray, under torchrun, or in this process alone.

However it is launched, and with however many workers, the same run goes on. This file alone joins the worker
and the cluster, which know nothing of each other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from spml_dist import cluster
from spml_dist.config import Config, explain
from spml_dist.config.notices import unreached_dilations
from spml_dist.errors import ConfigError, RunError
from spml_dist.run_folder import RunFolder
from spml_dist.training import data_check, restarts, stopping
from spml_dist.training.absolute_paths import absolute
from spml_dist.training.claim import begun, claim, exported_step, held

Show = Callable[[str], None]
"""takes a line for people"""


def print_line(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def train(
    config: Config | str | Path,
    overrides: Sequence[str] = (),
    *,
    alone: bool = False,
    show: Show = print_line,
) -> Path:
    """Train a segmenter to its last step, or go on with a run that stopped before. Returns its run folder.

    config: an experiment, or its YAML file with `dotted.key=value` overrides; alone: in this process, in
    plain torch, for a debugger or a notebook, else on Ray's workers with DeepSpeed (under torchrun its
    processes are the workers); show: is handed every line of the log.

    Raises ConfigError, DataError or RunError for what can be mended, and Stopped for a training that was
    stopped by a signal, once it is saved; the same call then goes on.
    """
    origins: dict[str, str] | None = None
    if isinstance(config, Config):
        if overrides:
            raise ConfigError("overrides", list(overrides), "give them with a file; or give a changed Config")
    else:
        config, origins = explain(config, overrides)
    config = absolute(config, Path.cwd())
    launch(config, alone=alone, show=show, origins=origins)
    return folder_of(config).path


def under_torchrun() -> bool:
    """Whether this process is one of those that torchrun has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_beside_rank_zero() -> bool:
    """Whether another of torchrun's processes speaks and writes for this one."""
    return under_torchrun() and int(os.environ["RANK"]) > 0


def folder_of(config: Config) -> RunFolder:
    """Where a configuration is trained: OUTPUT/NAME."""
    return RunFolder(Path(config.output) / config.name)


def launch(
    config: Config,
    network: str = "segmenter",
    *,
    alone: bool = False,
    show: Show = print_line,
    origins: Mapping[str, str] | None = None,
) -> bool:
    """Train a network ("segmenter" or "cam") into OUTPUT/NAME, to the end.

    config: with absolute paths; origins: dotted key → where its value comes from, for RUN/config.yaml.

    Returns whether this process trained it and answers for the run: not where it was trained before, nor on
    torchrun's other ranks. Raises as `train`.
    """
    if alone and config.engine.precision == "bfloat16":
        raise ConfigError("engine.precision", "bfloat16", "--alone computes in float32 or float64")
    manifest = data_check.check(config, network)  # first: a mistake must not claim the run folder
    run, payload = folder_of(config), {"config": config.model_dump(mode="json"), "network": network}
    exported = exported_step(run)
    complete = exported is not None and exported >= config.schedule.steps
    torchrun = not alone and under_torchrun()
    if torchrun and is_beside_rank_zero():
        if not complete:  # else rank 0 says so, and joins nobody
            _beside_rank_zero(config, payload)
        return False
    with held(run):
        claim(run, config, origins, data_check.is_known(config, manifest, run))
        show(f"run folder {run.path}")
        if network == "segmenter" and (notice := unreached_dilations(config)):
            show(f"spml-dist: {notice}")
        if complete:
            data_check.require_sound(config, manifest, run)
            again = "to train it anew, remove it" if run.parent else "for another run give another name="
            show(f"already trained to step {exported}; {again}")
            return False
        _train(config, run, payload, alone, torchrun, show)
    return True


def _train(
    config: Config, run: RunFolder, payload: dict[str, Any], alone: bool, torchrun: bool, show: Show
) -> None:
    with _report_at_the_end(run, show), stopping.on_signals(run.path), cluster.following(run.train_log, show):
        if alone:
            _work(config, payload)
        elif torchrun:
            _in_process_group(config, payload)
        else:
            _on_ray(config, run, payload, show)


def _on_ray(config: Config, run: RunFolder, payload: dict[str, Any], show: Show) -> None:
    from spml_dist.inference.device import resolve_device
    from spml_dist.training.worker import work

    # A first line at once: Ray takes many seconds to start, and says nothing.
    fewest, most = config.engine.fewest, config.engine.most
    show(f"starting Ray and {most if fewest == most else f'{fewest} to {most}'} workers")
    remote = os.environ.get("RAY_ADDRESS")  # its nodes may have GPUs where this one has none
    cluster.train(
        work,
        payload | {"unseen": True},
        name=config.name,
        workers=(fewest, most),
        device=config.engine.device if remote else resolve_device(config.engine.device),
        storage=run.ray,
        max_failures=config.engine.max_failures,
        reached=partial(restarts.reached, run),
        failed=partial(restarts.note, run),
        say=show,
        stopped=lambda: stopping.requested(run.path),
        grow=partial(stopping.ask_growth, run.path),
    )


def _beside_rank_zero(config: Config, payload: dict[str, Any]) -> None:
    # torchrun hands a signal to all its processes of a machine. Rank 0 answers it for all of them, and hears
    # of one that only another machine got by the file.
    stopping.on_later_signals(folder_of(config).path)
    _in_process_group(config, payload)


def _in_process_group(config: Config, payload: dict[str, Any]) -> None:
    """This process is one of torchrun's."""
    from spml_dist import comm
    from spml_dist.inference.device import resolve_device

    comm.join("nccl" if resolve_device(config.engine.device) == "cuda" else "gloo")
    _work(config, payload)
    comm.leave()


def _work(config: Config, payload: dict[str, Any]) -> None:
    from spml_dist.inference.device import resolve_device
    from spml_dist.training.worker import work

    work(payload | {"device": resolve_device(config.engine.device)})


@contextmanager
def _report_at_the_end(run: RunFolder, show: Show) -> Iterator[None]:
    """Write RUN/report.html however the block ends, if there is anything to show."""
    try:
        yield
    finally:
        from spml_dist.report import write_report

        try:
            if begun(run):
                show(f"report {from_here(write_report(run.path))}")
        except (RunError, OSError) as problem:  # never in the place of what ended the training
            print(f"no report: {problem}", file=sys.stderr)


def from_here(path: Path) -> str:
    """The path as it is typed in the working folder."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
