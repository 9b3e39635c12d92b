"""Whose a run folder is: one configuration's, from its first logged step on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from filelock import FileLock, Timeout

from spml_dist.config import Config, differences, dump, load
from spml_dist.errors import RunError
from spml_dist.files.write import replacing
from spml_dist.run_folder import RunFolder

WORKERS = "engine.workers"
FREE = (
    WORKERS,
    "engine.zero_stage",
    "engine.device",
    "engine.threads",
    "engine.max_failures",
    "engine.patience",
    "stream.loader_processes",
    "stream.skip_corrupt",
    "stream.retry_seconds",
    "stream.cache",
    "checkpoint.",
    "tracking.",
    "evaluation.",
    "cam.",
    "labeling.",
    "classifier.",
    "data.val",
    "data.test",
    "output",
)
"""keys that may change between a run and its continuation: they do not change what is learnt. What a stage's
own training takes of cam.* and classifier.* stands in its other sections.
A run is where its folder is found."""
DATA, EMBEDDING = "data.train", "model.embedding"
"""keys whose content matters, and not where it lies"""


@contextmanager
def held(run: RunFolder) -> Iterator[None]:
    """Make the run folder, and keep everybody else from training into it while the block runs.

    Raises RunError where somebody does, on any machine that sees the folder, and for a folder that cannot be
    made. Of a process that was killed nothing is left that would keep the next one out.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run.lock, timeout=0)
        lock.acquire()
    except Timeout as problem:
        remedy = f"wait for it, end it with spml-dist stop {run.path}, or give another name="
        raise RunError(f"{run.path}: another process trains this run", None, remedy) from problem
    except OSError as problem:
        raise _unwritable(run, problem) from problem
    try:
        yield
    finally:
        lock.release()


def claim(
    run: RunFolder, config: Config, origins: Mapping[str, str] | None = None, same_data: bool = False
) -> None:
    """Make the run folder and write config.yaml, or check that it belongs to this configuration.

    origins: dotted key → where its value comes from, for config.yaml to show; it keeps those that it has as
    long as no value changes; same_data: data.train is what the run has learnt from, wherever it lies now.
    A folder where no step was ever logged is free: what stopped that run is perhaps what is changed now.
    Raises RunError for a folder of another configuration, naming the keys, and for one that cannot be made.
    """
    text = dump(config, origins)
    if run.config.exists() and begun(run):
        known = load(run.config)
        _require_same(run, known, config, same_data)
        if known == config:
            text = run.config.read_text(encoding="utf-8")
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        if not begun(run):
            run.mlflow.unlink(missing_ok=True)  # MLflow's parameters cannot be changed
        with replacing(run.config) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise _unwritable(run, problem) from problem


def begun(run: RunFolder) -> bool:
    """Whether a step was logged."""
    return run.metrics.exists() and run.metrics.stat().st_size > 0


def exported_step(run: RunFolder) -> int | None:
    """Step of the exported network; None before there is one. Raises RunError for a damaged note of it."""
    if not run.model_info.exists():
        return None
    try:
        return int(json.loads(run.model_info.read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        remedy = "remove it: the training writes it again from its last checkpoint"
        raise RunError(f"{run.model_info} cannot be read", problem, remedy) from problem


def _unwritable(run: RunFolder, problem: OSError) -> RunError:
    return RunError(f"{run.path} cannot be written", problem.strerror, "choose another output=")


def _require_same(run: RunFolder, known: Config, config: Config, same_data: bool) -> None:
    # Where every rank takes its own mean, the number of workers decides what is learnt.
    free = FREE if config.loss.reduction == "global" else tuple(key for key in FREE if key != WORKERS)
    # What a stage is made of is known by digests.
    moved = (DATA, EMBEDDING) if run.parent else (DATA,) if same_data else ()
    found = [item for item in differences(known, config) if item[0] not in moved]
    other = [item for item in found if not item[0].startswith(free)]
    if other:
        if run.parent:  # what is typed for a stage are the keys of its section
            typed = [item for item in differences(known, config) if item[0].startswith("classifier.")]
            other = typed or other
        keys = ", ".join(f"{key} ({there} there, {here} here)" for key, there, here in other[:5])
        remedy = "remove it" if run.parent else "give another name= or remove it"
        raise RunError(f"{run.path} belongs to another configuration", keys, remedy)
