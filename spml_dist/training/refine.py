"""From a run's embedding to a classifier of all pixels: algorithms 1 and 2 of SPML, appendix A.4.

Every stage is a folder in RUN/stages, and one that is there is passed over: classifiers and packs tell by
digests whether they were made from what is there now.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spml_dist import tables
from spml_dist.config import Config, expanded, load
from spml_dist.data.format.manifest import Manifest, read_manifest
from spml_dist.errors import ConfigError, RunError
from spml_dist.files.write import write_json, write_text
from spml_dist.inference.evaluate_run import Split, evaluate, inputs
from spml_dist.labeling.label_pack import label_pack
from spml_dist.labeling.stages import Stage, may_be_tagged_alone
from spml_dist.records import LABELERS
from spml_dist.report import write_report
from spml_dist.run_folder import RunFolder
from spml_dist.training.absolute_paths import absolute
from spml_dist.training.claim import exported_step
from spml_dist.training.classify import FIRST, SECOND, classify, stage_experiment
from spml_dist.training.launch import Show, print_line, under_torchrun

LABELING = ("labeling.", "cam.")
"""beginnings of the overrides that labelers alone take"""
MEASURING = ("data.val=", "data.test=", "evaluation.", "engine.device=")
"""of those by which every network is measured"""


@dataclass(frozen=True)
class Labels:
    """A stage that labels the run's images, those with tags alone or the others."""

    name: str
    annotated: str | None
    """labeler of images of which pixels or boxes are annotated; None = they stay as they are"""
    tagged: str | None
    """labeler of images with tags alone"""
    overrides: tuple[str, ...] = ()
    """changes to `labeling.*`"""


@dataclass(frozen=True)
class Round:
    """Labels, each stage going on from the one before, and the classifier that learns from the last."""

    labels: tuple[Labels, ...]
    classifier: str


def procedure(manifest: Manifest) -> tuple[Round, Round]:
    """The stages for the labels of a pack; each image takes part in those of its own labels.

    Algorithm 1, of annotated pixels and boxes: a classifier S1 of the weak labels; its scores walk along the
    embedding; S2. Algorithm 2, of tags alone: activation maps walk, the nearest of their segments vote, S1;
    its scores, spread by one step, are voted on once more; S2.
    """
    kinds = set(manifest.counts.kinds)
    # Where seeds are there already, and where a pixel's label is nowhere: images with tags alone.
    tagged = may_be_tagged_alone(manifest)
    # A pack of version 1 does not say of what its labels are.
    marked = bool(kinds - {"tags", *LABELERS}) or not kinds
    maps = (Labels("cam-walk", None, "cam-walk"), Labels("neighbours-1", None, "neighbours"))
    walk = (Labels("walk", "walk", None),)
    scores = (Labels("scores", None, "walk", ("labeling.steps=1",)),)
    votes = (Labels("neighbours-2", None, "neighbours"),)
    return (
        Round(maps if tagged else (), FIRST),
        Round((*(scores if tagged else ()), *(walk if marked else ()), *(votes if tagged else ())), SECOND),
    )


def refine(
    run: str | Path,
    overrides: Sequence[str] = (),
    *,
    cam: str | Path | None = None,
    workers: int = 1,
    alone: bool = False,
    show: Show = print_line,
) -> dict[str, Any]:
    """Make everything that comes after a run's training, or what is left of it, and measure it.

    run: the folder that `train` returned; overrides: changes to the run's configuration, above all to
    `classifier.*` and `labeling.*`; cam: the run of `spml-dist cam train`, None for OUTPUT/NAME_cam, which
    images with tags alone need; workers: processes that label side by side (those that train are
    `engine.workers`); alone, show: as `train`.

    Returns what RUN/refinement.json then holds: each stage with split, images and mIoU. Raises as `classify`,
    and RunError where activation maps are needed and there is no run that makes them.
    """
    if under_torchrun() and not alone:
        remedy = "start it once, on Ray: engine.workers says how many train; or torchrun `spml-dist classify`"
        raise RunError("refine under torchrun: every process would label", None, remedy)
    folder, overrides = RunFolder(Path(os.path.abspath(run))), expanded(overrides)
    config = absolute(load(folder.config, overrides), Path.cwd())
    _require_own_labels(folder, config)
    first, second = procedure(read_manifest(config.data.train))
    maps = _cam_run(folder, cam) if first.labels else None
    training = [text for text in overrides if not text.startswith(LABELING)]
    _require_maps_wanted(bool(maps), overrides)
    stage_experiment(folder, None, FIRST, training)  # before anything is measured or labelled
    how = [text for text in overrides if text.startswith(MEASURING)]
    network, measured = folder.path, list(_of_classifier(folder.path, "embedding", how))
    for each in (first, second):
        labels = config.data.train
        for stage in each.labels:
            show(f"stage {stage.name}: labels")
            out = str(folder.stage(stage.name))
            result = _label(stage, network, labels, out, maps, overrides, workers)
            measured += _of_labels(stage.name, result)
            labels = out
        show(f"stage {each.classifier}: a classifier")
        source = labels if each.labels else None
        network = classify(folder.path, source, each.classifier, training, alone=alone, show=show)
        measured += _of_classifier(network, each.classifier, how)
    return _write(folder, config, measured)


def table(refinement: Mapping[str, Any]) -> str:
    """What `refine` returns, a line for each number."""
    rows = [
        (
            f"{each['stage']}, {each['readout']}",
            *(each["split"], each["images"], f"{100 * each['miou']:.1f}"),
            "-" if (edges := each.get("boundary_miou")) is None else f"{100 * edges:.1f}",
        )
        for each in refinement["stages"]
    ]
    return tables.table(("stage", "split", "images", "mIoU", "boundary"), rows)


def _require_own_labels(run: RunFolder, config: Config) -> None:
    """Raise ConfigError for other labels than the run's, which the last stage would refuse after hours."""
    if config.data.train != absolute(load(run.config), Path.cwd()).data.train:
        remedy = "what follows an embedding learns from the labels that it was trained with"
        raise ConfigError("data.train cannot change here", config.data.train, remedy)


def _require_maps_wanted(maps: bool, overrides: Sequence[str]) -> None:
    """Raise ConfigError for settings of activation maps that nobody asks for."""
    if not maps and (idle := [text for text in overrides if text.startswith("cam.")]):
        remedy = "no image of the run has tags alone, so no activation maps are made: leave it out"
        raise ConfigError(f"{idle[0].partition('=')[0]} changes nothing", None, remedy)


def _cam_run(run: RunFolder, cam: str | Path | None) -> Path:
    """The run whose activation maps say where tags are."""
    place = Path(cam) if cam else run.path.with_name(f"{run.path.name}_cam")
    if not RunFolder(place).model_info.exists():
        what = f"{place}: no run of activation maps, which images with tags alone need"
        raise RunError(what, None, "make one by `spml-dist cam train`, and give it by --cam")
    return place


def _label(
    stage: Labels,
    network: Path,
    source: str,
    out: str,
    maps: Path | None,
    overrides: Sequence[str],
    workers: int,
) -> dict[str, Any]:
    """Label a pack into another, unless that is done; what its note says."""
    cam = maps if stage.tagged == "cam-walk" else None
    taken = ("labeling.", "evaluation.", "engine.device=", *(["cam."] if cam else []))
    own = [*(text for text in overrides if text.startswith(taken)), *stage.overrides]
    by = [Stage(stage.name, stage.annotated, stage.tagged)]
    ((_, result),) = label_pack(network, source, out, by, cam, None, own, workers)
    return result


def _of_classifier(folder: Path, stage: str, overrides: Sequence[str]) -> Iterator[dict[str, Any]]:
    """mIoU of a network's read-outs on the validation split, without one on test; nothing without either."""
    run = RunFolder(folder)
    config = load(run.config, overrides)
    splits: tuple[Split, ...] = ("val", "test")
    split = next((name for name in splits if getattr(config.data, name)), None)
    if split is None:
        return
    result = _evaluated(run, split, config)
    if result is None:
        result = evaluate(folder, split, pictures=0, progress=True, overrides=overrides)
    for readout, values in result["readouts"].items():
        yield {
            "stage": stage,
            "readout": readout,
            "split": split,
            "images": result["images"],
            "miou": values["miou"],
            "boundary_miou": values.get("boundary_miou"),  # results of earlier releases have none
        }


def _evaluated(run: RunFolder, split: Split, config: Config) -> dict[str, Any] | None:
    """What an evaluation of the same data and settings has found since the network was exported."""
    path = run.result(split)
    if not path.exists() or path.stat().st_mtime_ns < run.model_info.stat().st_mtime_ns:
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    same = result.get("inputs") == inputs(config, split) and result.get("step") == exported_step(run)
    return result if same else None


def _of_labels(stage: str, result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Mean IoU of a stage's labels over the images with ground truth, nothing without any; and by class."""
    if result["all"]["iou"] is None:
        return
    yield {
        "stage": stage,
        "readout": "labels",
        "split": result["split"],
        "images": result["images_measured"],
        "miou": result["all"]["iou"],
        "classes": {name: _with_recall(values) for name, values in result["classes"].items()},
    }


def _with_recall(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Precision, recall and IoU of a class, by 1/IoU = 1/precision + 1/recall - 1; None if nothing tells."""
    precision, iou = values["precision"], values["iou"]
    if iou is None:
        recall = None
    elif not iou or not precision:
        recall = 0.0
    else:
        recall = 1 / (1 / iou - 1 / precision + 1)
    return {"precision": precision, "recall": recall, "iou": iou}


def _write(run: RunFolder, config: Config, measured: list[dict[str, Any]]) -> dict[str, Any]:
    manifest = read_manifest(config.data.train)
    refinement = {
        "run": config.name,
        "seed": config.seed,
        "classes": list(manifest.classes),
        "background": manifest.background,
        "stages": measured,
    }
    write_json(run.refinement, refinement, sort_keys=False)
    write_text(run.refinement.with_suffix(".md"), f"```\n{table(refinement)}\n```\n")
    write_report(run.path)
    return refinement
