"""How much of the images labelers label, and, where there is ground truth, how rightly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spml_dist import tables
from spml_dist.data.format.keys import image_id_of
from spml_dist.data.format.manifest import NAMED, read_manifest
from spml_dist.data.stream.reader import samples
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.inference import metrics
from spml_dist.labeling.labeler import possible
from spml_dist.progress import progress_bar


def measure(
    folder: str | Path, *kinds: str, progress: bool = True, cache: ShardCache | None = None
) -> dict[str, Any]:
    """Numbers of a pack's images that have one of some kinds of annotation, as plain data for JSON.

    `labelled` are shares of their pixels; `precision` (of the pixels that carry the label) and `iou` (what is
    unlabelled counts as missed) are over the images with ground truth, None where that shows nothing of a
    class. `all` has the mean IoU over the classes that the ground truth shows. `images_unknown` counts the
    images of which neither tags nor labels tell anything; `unknown` are the ids of the first of them.
    """
    manifest = read_manifest(folder)
    classes = manifest.classes
    count = len(classes)
    painted, pixels = np.zeros(count, np.int64), 0
    confusion = np.zeros((count, count + 1), np.int64)
    images = measured = 0
    unknown: list[str] = []
    for sample in progress_bar(samples(folder, cache=cache), "measuring", manifest.samples, shown=progress):
        if set(kinds).isdisjoint(sample.kinds):
            if possible(sample, count, manifest.background) is None:
                unknown.append(image_id_of(sample.key))
            continue
        images += 1
        pixels += sample.semantic.size
        painted += np.bincount(sample.semantic.ravel(), minlength=256)[:count]
        if sample.mask is not None:
            measured += 1
            confusion += metrics.confusion(sample.mask, sample.semantic, count)
    return {
        "split": manifest.split,
        "images": manifest.samples,
        "images_labelled": images,
        "images_measured": measured,
        "images_unknown": len(unknown),
        "unknown": unknown[:NAMED],
        "classes": _by_class(classes, painted / max(pixels, 1), confusion),
        "all": _over_all(painted.sum() / max(pixels, 1), confusion),
    }


def table(result: dict[str, Any], what: str = "labels") -> str:
    """What `measure` returns, in per cent of the labelled images' pixels, a line for each class.

    what: the word for what images got.
    """
    head = (
        f"{result['images_labelled']} of {result['images']} images of {result['split']} got {what}, "
        f"{result['images_measured']} of them have ground truth; per cent of their pixels"
    )
    named = [*result["classes"].items(), ("all (IoU: mean)", result["all"])]
    keys = "labelled", "precision", "iou"
    rows = [(name, *(_percent(values[key]) for key in keys)) for name, values in named]
    lines = [head, *_unknown(result), "", tables.table(("class", "labelled", "precision", "IoU"), rows)]
    return "\n".join(lines)


def _unknown(result: dict[str, Any]) -> list[str]:
    if not result["images_unknown"]:
        return []
    more = ", …" if result["images_unknown"] > len(result["unknown"]) else ""
    reason = "have neither tags nor labels of a class and stay as they are"
    return [f"{result['images_unknown']} images {reason}: {', '.join(result['unknown'])}{more}"]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _by_class(classes: tuple[str, ...], painted: np.ndarray, confusion: np.ndarray) -> dict[str, dict]:
    # The last column is pixels without a label: they lower the recall, never the precision.
    present, predicted = metrics.present(confusion), confusion[:, :-1].sum(axis=0)
    overlap = metrics.iou(confusion)
    return {
        name: {
            "labelled": float(painted[label]),
            "precision": float(confusion[label, label] / predicted[label]) if predicted[label] else None,
            "iou": float(overlap[label]) if present[label] else None,
        }
        for label, name in enumerate(classes)
    }


def _over_all(painted: float, confusion: np.ndarray) -> dict[str, float | None]:
    present, predicted = metrics.present(confusion), confusion[:, :-1].sum()
    return {
        "labelled": float(painted),
        "precision": float(np.trace(confusion) / predicted) if predicted else None,
        "iou": float(metrics.iou(confusion)[present].mean()) if present.any() else None,
    }
