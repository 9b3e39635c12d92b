"""A finished run measured on one of its splits, with everything that its folder keeps of that."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from spml_dist.config import Config, flatten, load
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.errors import RunError
from spml_dist.files.write import write_json, write_text
from spml_dist.inference import result_pictures, result_table
from spml_dist.inference.device import resolve_device
from spml_dist.inference.evaluate import EvaluatedImage, evaluate_model
from spml_dist.model import export
from spml_dist.report import write_report
from spml_dist.run_folder import RunFolder
from spml_dist.tracking import mlflow_sync

Split = Literal["val", "test", "train"]
SPLITS: tuple[Split, ...] = ("val", "test", "train")

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
) -> dict[str, Any]:
    """mIoU of a finished run on one of its splits, by its classifier and by nearest neighbours.

    run: the folder that `train` returned; split: one of the run's configuration, packed with masks; oracle:
    label the neighbours' prototypes with ground truth; pictures: images to draw, None as
    `evaluation.pictures` says; progress: show a bar on stderr.

    Returns what RUN/result.json then holds: `miou` (the classifier's, 0 to 1), `readouts` with `miou`, `iou`
    by class and `pixel_accuracy` of each, `confusion` in pixels, and what was measured. Table, pictures and
    report are written beside it, and MLflow is sent them where it knows the run. Raises RunError for a folder
    without a trained model and a split that it has not, DataError for one that cannot be measured.
    """
    evaluation = evaluate_run(Path(run), split, oracle=oracle, pictures=pictures, progress=progress)
    if evaluation.untracked:
        log.warning(evaluation.untracked)
    return evaluation.result


def evaluate_run(
    folder: Path,
    split: Split,
    *,
    oracle: bool = False,
    pictures: int | None = None,
    progress: bool = True,
) -> RunEvaluation:
    """Evaluate, and write result, table, pictures and report into the run folder; as `evaluate`."""
    run = RunFolder(folder)
    _require_trained(run)
    config = load(run.config)
    split_folder = _split_folder(run, config, split)
    count = config.evaluation.pictures if pictures is None else pictures
    pictured = _evenly_spread(read_manifest(split_folder).samples, count)
    images: list[EvaluatedImage] = []
    model, info = export.load(run.export)
    numbers = evaluate_model(
        model.to(resolve_device(config.engine.device)),
        info,
        split_folder,
        config.data.train,
        config.evaluation,
        split=split,
        seed=config.seed,
        oracle=oracle,
        progress=progress,
        cache=ShardCache(config.stream.cache, config.stream.cache_gb, config.stream.retry_seconds),
        # Only what will be drawn stays in memory.
        each=lambda image: images.append(image) if image.number in pictured else None,
    )
    result = {"run": config.name, "step": info.get("step"), **numbers}
    table = result_table.markdown(result)
    files = _write(run, result, table, images)
    return RunEvaluation(result, table, files, _track(folder, config))


def _write(
    run: RunFolder, result: dict[str, Any], table: str, images: list[EvaluatedImage]
) -> tuple[Path, ...]:
    numbers = run.result(result["split"], result["oracle"])
    write_json(numbers, result, sort_keys=False)
    write_text(numbers.with_suffix(".md"), table)
    pictures = result_pictures.write(run, result, images)
    # Last, for it shows what the others hold.
    return numbers, numbers.with_suffix(".md"), *pictures, write_report(run.path)


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
    packed = {name: getattr(config.data, name) for name in SPLITS if getattr(config.data, name)}
    if split not in packed:
        remedy = f"write the path of a packed split there, or give another --split ({', '.join(packed)})"
        raise RunError(f"{run.config}: data.{split} is null", None, remedy)
    return packed[split]


def _evenly_spread(images: int, count: int) -> set[int]:
    """Numbers of some images, spread evenly over a split."""
    return set(np.linspace(0, images - 1, count).round().astype(int).tolist())
