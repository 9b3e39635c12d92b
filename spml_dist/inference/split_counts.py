"""What an evaluation counts of each image, and what the images of a split add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spml_dist.inference import metrics
from spml_dist.inference.boundary import boundary_iou
from spml_dist.records import Sample

EXTREMES = 4
"""best images that a result names, and worst ones"""


@dataclass(frozen=True)
class EvaluatedImage:
    """One image of the split and what the model predicts for it."""

    number: int
    """place in the split, from 0"""
    sample: Sample
    mask: np.ndarray
    """[H, W] uint8: ground truth"""
    segments: np.ndarray
    """[H, W] int32"""
    predictions: dict[str, np.ndarray]
    """read-out → [H, W] uint8, 0..K-1"""
    name: str
    """its image id"""
    miou: float
    """of the first read-out, over the classes that the image shows or was said to show"""


@dataclass(frozen=True)
class ImageCounts:
    """What an image adds to the numbers of the split."""

    image: str
    confusion: dict[str, np.ndarray]
    boundary: dict[str, np.ndarray]
    miou: float
    hits: float
    queries: int
    evaluated: EvaluatedImage | None
    """None where nobody wants to see it"""


class SplitCounts:
    """What the images of a split add up to."""

    def __init__(self, names: Sequence[str], num_classes: int):
        shape = (num_classes, num_classes + 1)
        self.images = 0
        self.confusion = {name: np.zeros(shape, np.int64) for name in names}
        self._boundary = {name: np.zeros((3, num_classes), np.int64) for name in names}
        self._hits, self._queries = 0.0, 0
        self._miou: list[tuple[float, str]] = []

    def add(self, image: ImageCounts) -> None:
        self.images += 1
        for name in self.confusion:
            self.confusion[name] += image.confusion[name]
            self._boundary[name] += image.boundary[name]
        self._hits, self._queries = self._hits + image.hits, self._queries + image.queries
        self._miou.append((image.miou, image.image))

    def precision(self) -> float:
        """Mean precision of the neighbours over all queries whose true label is known."""
        return float(self._hits / max(self._queries, 1))

    def summaries(self, classes: list[str]) -> dict[str, dict]:
        """Numbers of each read-out."""
        return {
            name: _summary(self.confusion[name], self._boundary[name], classes) for name in self.confusion
        }

    def extremes(self) -> dict[str, list[dict]]:
        """The images of highest and of lowest mIoU, none in both."""
        ordered = sorted(self._miou, reverse=True)
        count = min(EXTREMES, len(ordered) // 2)
        ends = {"best": ordered[:count], "worst": ordered[::-1][:count]}
        return {end: [{"image": name, "miou": miou} for miou, name in found] for end, found in ends.items()}


def miou_of_shown(counts: np.ndarray) -> float:
    shown = metrics.present(counts) | (counts[:, : len(counts)].sum(axis=0) > 0)
    return float(metrics.iou(counts)[shown].mean()) if shown.any() else 0.0


def _summary(counts: np.ndarray, boundary: np.ndarray, classes: list[str]) -> dict:
    edges = boundary_iou(boundary)

    def by_class(values: np.ndarray) -> dict[str, float]:
        return dict(zip(classes, values.tolist(), strict=True))

    return {
        "miou": metrics.miou(counts),
        "boundary_miou": float(edges.mean()),
        "pixel_accuracy": metrics.pixel_accuracy(counts),
        "iou": by_class(metrics.iou(counts)),
        "boundary_iou": by_class(edges),
        "pixel_precision": by_class(metrics.pixel_precision(counts)),
        "pixel_recall": by_class(metrics.pixel_recall(counts)),
    }
