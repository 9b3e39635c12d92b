"""A finished run measured on one of its splits, with everything that its folder keeps of that."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from spml_dist.config import Config, expanded, flatten, load
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.errors import ConfigError, RunError
from spml_dist.files.write import require_place, write_json, write_text
from spml_dist.inference import result_pictures, result_table
from spml_dist.inference.device import resolve_device
from spml_dist.inference.evaluate import READ_OUTS, EvaluateHow, evaluate_model
from spml_dist.inference.split_counts import EXTREMES, EvaluatedImage
from spml_dist.model import export
from spml_dist.report import write_report
from spml_dist.run_folder import RunFolder
from spml_dist.tracking import mlflow_sync

Split = Literal["val", "test", "train"]
SPLITS: tuple[Split, ...] = ("val", "test", "train")
CHANGEABLE = ("evaluation.", "data.", "stream.", "engine.device=", "tracking.")
"""what an evaluation may have other than its run: the network is trained"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunEvaluation:
    """What an evaluation came to."""

    result: dict[str, Any]
    """the contents of RUN/result.json"""
    table: str
    """the same for people, Markdown"""
    files: tuple[Path, ...]
    """everything that was written"""
    untracked: str | None
    """what MLflow could not be sent, in a line; None where it has everything, or does not know the run"""


def evaluate(
    run: str | Path,
    split: Split = "val",
    *,
    oracle: bool = False,
    pictures: int | None = None,
    progress: bool = False,
    readouts: Sequence[str] = READ_OUTS,
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
    window: int | None = None,
    crf: bool = False,
    workers: int | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """mIoU of a finished run on one of its splits, by its classifier and by nearest neighbours.

    run: the folder that `train` returned; split: one of the run's configuration, packed with masks; oracle:
    label the neighbours' prototypes with ground truth; pictures: images to draw, None as
    `evaluation.pictures` says; progress: show a bar on stderr; readouts: "classifier", "neighbours" or both;
    scales, mirror, window: what every image is seen in, whose mean decides, windows for the classifier alone;
    crf: refine by a dense CRF (extra `crf`); workers: processes of one thread each, None = this one with all
    its threads; overrides: changes to the run's configuration as `key=value`, not to its network.

    Returns what RUN/result.json then holds: `miou` (the classifier's, 0 to 1), `readouts` with `miou`, `iou`
    by class, `boundary_miou` and `pixel_accuracy` of each, `confusion` in pixels, and what was measured.
    Table, pictures and report are written beside it, and MLflow is sent them where it knows the run. Raises
    RunError for a folder without a trained model and a split that it has not, DataError for one that cannot
    be measured.
    """
    how = EvaluateHow(tuple(readouts), oracle, tuple(scales), mirror, window, crf, workers)
    evaluation = evaluate_run(
        Path(run), split, how, pictures=pictures, progress=progress, overrides=overrides
    )
    if evaluation.untracked:
        log.warning(evaluation.untracked)
    return evaluation.result


def evaluate_run(
    folder: Path,
    split: Split,
    how: EvaluateHow | None = None,
    *,
    pictures: int | None = None,
    progress: bool = True,
    overrides: Sequence[str] = (),
) -> RunEvaluation:
    """Evaluate, and write result, table, pictures and report into the run folder; as `evaluate`."""
    run, how = RunFolder(folder), how or EvaluateHow()
    _require_trained(run)
    config = load(run.config, _changes(expanded(overrides)))
    split_folder = _split_folder(run, config, split)
    require_place(run.result(split, how.oracle, how.ways), "make the run folder writable")
    shown = _Shown(
        read_manifest(split_folder).samples, config.evaluation.pictures if pictures is None else pictures
    )
    model, info = export.load(run.export)
    numbers = evaluate_model(
        model.to(resolve_device(config.engine.device)),
        info,
        split_folder,
        config.data.train,
        config.evaluation,
        split=split,
        seed=config.seed,
        how=how,
        swaps=config.stream.mirror_swaps,
        crop=config.stream.crop,
        progress=progress,
        cache=ShardCache(config.stream.cache, config.stream.cache_gb, config.stream.retry_seconds),
        each=shown.add if shown.count else None,
    )
    asks_train = "neighbours" in how.readouts
    result = {
        "run": config.name,
        "step": info.get("step"),
        "pack": split_folder,
        "settings": config.evaluation.model_dump(mode="json"),
        "inputs": inputs(config, split, asks_train),
        **({"train_labels": read_manifest(config.data.train).labels.split(",")} if asks_train else {}),
        **numbers,
    }
    table = result_table.markdown(result)
    files = _write(run, result, table, shown)
    return RunEvaluation(result, table, files, _track(folder, config))


def inputs(config: Config, split: Split, asks_train: bool = True) -> str:
    """A digest of what a result depends on beside its network and its views: settings and packs.

    asks_train: whether neighbours are searched in the training set.
    """
    packs = (_tars(getattr(config.data, split)), _tars(config.data.train) if asks_train else [])
    evaluation = config.evaluation.model_dump(mode="json", exclude={"pictures"})
    decides = [evaluation, config.stream.mirror_swaps, config.stream.crop, config.seed, *packs]
    return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def _tars(place: str) -> list[str]:
    return [shard.sha256 for shard in read_manifest(place).shards]


@dataclass
class _Shown:
    """The images that will be drawn: only they stay in memory."""

    images: int
    """of the split"""
    count: int
    """to draw, spread evenly over the split"""
    spread: list[EvaluatedImage] = field(default_factory=list)
    best: list[EvaluatedImage] = field(default_factory=list)
    worst: list[EvaluatedImage] = field(default_factory=list)

    def add(self, image: EvaluatedImage) -> None:
        if image.number in set(np.linspace(0, self.images - 1, self.count).round().astype(int).tolist()):
            self.spread.append(image)
        # As the result names them: equal ones by their keys.
        order = sorted([*self.best, image], key=lambda each: (each.miou, each.name), reverse=True)
        self.best = order[: min(EXTREMES, self.images // 2)]
        order = sorted([*self.worst, image], key=lambda each: (each.miou, each.name))
        self.worst = order[: min(EXTREMES, self.images // 2)]


def _write(run: RunFolder, result: dict[str, Any], table: str, shown: _Shown) -> tuple[Path, ...]:
    numbers = run.result(result["split"], result["oracle"], result["ways"])
    write_json(numbers, result, sort_keys=False)
    write_text(numbers.with_suffix(".md"), table)
    pictures = result_pictures.write(run, result, shown.spread, shown.best, shown.worst)
    # Last, for it shows what the others hold.
    return numbers, numbers.with_suffix(".md"), *pictures, write_report(run.path)


def _changes(overrides: Sequence[str]) -> Sequence[str]:
    for text in overrides:
        if not text.startswith(CHANGEABLE):
            key, known = text.partition("=")[0], ", ".join(key.rstrip(".=") for key in CHANGEABLE)
            raise ConfigError(f"{key} cannot change", None, f"the run is trained: only {known}")
    return overrides


def _track(folder: Path, config: Config) -> str | None:
    """Send the result to the run's MLflow record, if it has one; a server out of reach loses nothing."""
    uri = mlflow_sync.address(folder)
    if uri is None:
        return None
    missing = mlflow_sync.sync(folder, uri, config.tracking.experiment, config.name, flatten(config))
    return str(missing) if missing else None


def _require_trained(run: RunFolder) -> None:
    if not run.path.is_dir():
        raise RunError(
            f"{run.path}: no such run folder", None, "give the folder that `spml-dist train` wrote"
        )
    if not run.export.is_dir():
        remedy = "finish the training: the same command resumes it"
        raise RunError(f"{run.export}: no trained model yet", None, remedy)


def _split_folder(run: RunFolder, config: Config, split: Split) -> str:
    """Where the split lies."""
    if split not in SPLITS:
        raise ConfigError("split", split, f"one of {', '.join(SPLITS)}")
    packed = {name: getattr(config.data, name) for name in SPLITS if getattr(config.data, name)}
    if split not in packed:
        remedy = f"write the path of a packed split there, or give another --split ({', '.join(packed)})"
        raise RunError(f"{run.config}: data.{split} is null", None, remedy)
    return packed[split]
