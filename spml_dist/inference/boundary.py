"""How well the edges of predicted label maps agree with the truth: boundary IoU (Cheng et al., CVPR 2021).

A class's boundary are its pixels within a distance of the edge of its mask, of the image's edge too. As for
`metrics`, counts are added up over a whole split before anything is divided.
"""

from __future__ import annotations

import cv2
import numpy as np

from spml_dist.records import IGNORED

WIDTH = 0.02
"""distance in shares of the image's diagonal"""


def boundary_counts(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels of each class's boundary, [3, K] int64: in the truth, in the prediction, in both.

    truth, prediction: [H, W] integers 0..255. What the truth ignores belongs to no mask of either: there both
    end alike, and what is predicted there does not count.
    """
    truth = truth.astype(np.uint8)
    prediction = np.where(truth == IGNORED, IGNORED, prediction).astype(np.uint8)
    distance = max(1, round(WIDTH * float(np.hypot(*truth.shape))))
    edges = [_boundary(labels, distance) for labels in (truth, prediction)]
    both = edges[0] & edges[1] & (truth == prediction)
    parts = [truth[edges[0]], prediction[edges[1]], truth[both]]
    return np.stack([np.bincount(part, minlength=256)[:num_classes] for part in parts])


def boundary_iou(counts: np.ndarray) -> np.ndarray:
    """Intersection over union of each class's boundaries, [K] float64; 0 for a class without any."""
    truth, prediction, both = counts
    return both / (truth + prediction - both + 1e-12)


def _boundary(labels: np.ndarray, distance: int) -> np.ndarray:
    """[H, W] bool: another label, or the image's end, is within the distance (of steps as a king makes)."""
    window = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    lowest = cv2.erode(labels, window, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    highest = cv2.dilate(labels, window, borderType=cv2.BORDER_CONSTANT, borderValue=255)
    return lowest != highest
