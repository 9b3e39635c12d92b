"""How much of the images seeds label, and, where there is ground truth, how rightly."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.stream.reader import samples
from spml_dist.data.stream.shard_cache import Cache
from spml_dist.inference import metrics


def measure(folder: str | Path, kind: str, *, progress: bool = True, cache: Cache | None = None) -> dict:
    """Numbers of a pack's images that have a kind of annotation, as plain data for JSON.

    `labelled` are shares of their pixels; `precision` (of the pixels that carry the label) and `iou` (what is
    unlabelled counts as missed) are over the images with ground truth, None where that shows nothing of a
    class. `all` has the mean IoU over the classes that the ground truth shows.
    """
    manifest = read_manifest(folder)
    classes = manifest.classes
    count = len(classes)
    painted, pixels = np.zeros(count, np.int64), 0
    confusion = np.zeros((count, count + 1), np.int64)
    images = measured = 0
    shown = {"desc": "measuring", "total": manifest.samples, "unit": "image", "disable": not progress}
    pause = 0.2 if sys.stderr.isatty() else 10
    for sample in tqdm(samples(folder, cache=cache), mininterval=pause, **shown):
        if kind not in sample.kinds:
            continue
        images += 1
        pixels += sample.semantic.size
        painted += np.bincount(sample.semantic.ravel(), minlength=256)[:count]
        if sample.mask is not None:
            measured += 1
            confusion += metrics.confusion(sample.mask, sample.semantic, count)
    return {
        "images": manifest.samples,
        "images_labelled": images,
        "images_measured": measured,
        "classes": _by_class(classes, painted / max(pixels, 1), confusion),
        "all": _over_all(painted.sum() / max(pixels, 1), confusion),
    }


def _by_class(classes: tuple[str, ...], painted: np.ndarray, confusion: np.ndarray) -> dict[str, dict]:
    there, said = metrics.present(confusion), confusion[:, :-1].sum(axis=0)
    overlap = metrics.iou(confusion)
    return {
        name: {
            "labelled": float(painted[label]),
            "precision": float(confusion[label, label] / said[label]) if said[label] else None,
            "iou": float(overlap[label]) if there[label] else None,
        }
        for label, name in enumerate(classes)
    }


def _over_all(painted: float, confusion: np.ndarray) -> dict[str, float | None]:
    there, said = metrics.present(confusion), confusion[:, :-1].sum()
    return {
        "labelled": float(painted),
        "precision": float(np.trace(confusion) / said) if said else None,
        "iou": float(metrics.iou(confusion)[there].mean()) if there.any() else None,
    }
