"""How well predicted label maps agree with the truth: the VOC protocol.

Counts are added up over a whole split before anything is divided, so that an image weighs by its pixels.
"""

from __future__ import annotations

import numpy as np


def confusion(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixel counts [K, K+1] int64: row = true class, column = predicted class, column K = anything else.

    truth, prediction: integer arrays of one shape. Pixels whose truth is outside 0..K-1 are not counted.
    A prediction outside the classes is wrong: it counts for its true class and as no class's prediction.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth {truth.shape} and prediction {prediction.shape} differ in shape")
    counted = (truth >= 0) & (truth < num_classes)
    row = truth[counted].astype(np.int64)
    column = prediction[counted].astype(np.int64)
    column[(column < 0) | (column > num_classes)] = num_classes
    width = num_classes + 1
    return np.bincount(row * width + column, minlength=num_classes * width).reshape(num_classes, width)


def iou(counts: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, [K] float64: tp / (truth + predicted − tp + 1e-12).

    A class that occurs neither in the truth nor in the prediction has 0.
    """
    hit = _hits(counts)
    truth = counts.sum(axis=1)
    predicted = counts[:, : len(counts)].sum(axis=0)
    return hit / (truth + predicted - hit + 1e-12)


def miou(counts: np.ndarray) -> float:
    """Mean of `iou` over all K classes, absent ones included."""
    return float(iou(counts).mean())


def pixel_accuracy(counts: np.ndarray) -> float:
    """Share of the counted pixels that are right; 0 when none was counted."""
    return float(_hits(counts).sum() / max(counts.sum(), 1))


def pixel_precision(counts: np.ndarray) -> np.ndarray:
    """Of the pixels predicted as each class, the share that is right, [K] float64; 0 where there is none."""
    return _hits(counts) / np.maximum(counts[:, : len(counts)].sum(axis=0), 1)


def pixel_recall(counts: np.ndarray) -> np.ndarray:
    """Of each class's true pixels, the share that is found, [K] float64; 0 where there is none."""
    return _hits(counts) / np.maximum(counts.sum(axis=1), 1)


def present(counts: np.ndarray) -> np.ndarray:
    """[K] bool: the class occurs in the truth."""
    return counts.sum(axis=1) > 0


def _hits(counts: np.ndarray) -> np.ndarray:
    return np.diagonal(counts)
