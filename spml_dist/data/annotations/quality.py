"""How well regions follow what a person outlined: the three measures of over-segmentation.

All take regions and one person's segmentation as ids [H, W] of integers ≥ 0, of the same shape.
"""

from __future__ import annotations

import cv2
import numpy as np

from spml_dist.drawing.overlay import boundaries


def boundary_recall(regions: np.ndarray, truth: np.ndarray, tolerance: float = 2) -> float:
    """Share of the truth's boundary pixels with a region boundary within `tolerance` pixels (Euclidean).

    A boundary pixel differs from the pixel below or to the right. 1 where the truth has no boundary.
    """
    true_edges, region_edges = boundaries(truth), boundaries(regions)
    if not true_edges.any():
        return 1.0
    if not region_edges.any():  # OpenCV's distance to no pixel at all is an arbitrary number
        return 0.0
    distance = cv2.distanceTransform((~region_edges).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return float((distance[true_edges] <= tolerance).mean())


def undersegmentation_error(regions: np.ndarray, truth: np.ndarray) -> float:
    """Pixels by which regions leak over the truth's segments, as a share of the image.

    Every region adds, for each segment it touches, the smaller of its parts inside and outside the segment
    (Neubert and Protzel, Superpixel benchmark and comparison, 2012).
    """
    overlap = _overlap(regions, truth)
    outside = overlap.sum(axis=1, keepdims=True) - overlap
    return float(np.minimum(overlap, outside).sum() / regions.size)


def achievable_accuracy(regions: np.ndarray, truth: np.ndarray) -> float:
    """Share of the pixels that are right when each region takes the segment that it covers most.

    Liu, Tuzel, Ramalingam and Chellappa (Entropy rate superpixel segmentation, CVPR 2011).
    """
    return float(_overlap(regions, truth).max(axis=1).sum() / regions.size)


def _overlap(regions: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pixels of region i in segment j, [regions, segments] int64."""
    row, column = regions.astype(np.int64).ravel(), truth.astype(np.int64).ravel()
    rows, columns = int(row.max()) + 1, int(column.max()) + 1
    return np.bincount(row * columns + column, minlength=rows * columns).reshape(rows, columns)
