"""Scribbles as strokes of a pen: drawn as lines, whole or shortened around their middle."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from spml_dist.records import UNLABELLED

_PEN = np.ones((3, 3), np.uint8)


def draw_strokes(strokes: Iterable[tuple[int, np.ndarray]], shape: tuple[int, int]) -> np.ndarray:
    """Draw strokes as lines 3 pixels wide, later ones over earlier ones; the rest is unlabelled.

    strokes: (class, [n, 2] of x, y in pixels). shape: (H, W). Returns [H, W] uint8: 0..K-1, or 254.
    """
    semantic = np.full(shape, UNLABELLED, np.uint8)
    for label, points in strokes:
        # A line of one point would not be drawn: end where it starts.
        corners = np.rint([*points, points[-1]]).astype(np.int32).reshape(-1, 1, 2)
        # Wider lines of cv2 differ in width between its versions; those of one pixel do not.
        line = cv2.polylines(np.zeros(shape, np.uint8), [corners], isClosed=False, color=1)
        semantic[cv2.dilate(line, _PEN) > 0] = label
    return semantic


def shorten_stroke(points: np.ndarray, share: float) -> np.ndarray:
    """The middle part of a stroke: [m, 2] for [n, 2] points of x, y.

    share: of the stroke's length, 0..1; 1 gives the stroke itself, 0 the point halfway along it
    (scribbles of 80, 50, 30 and 0 % of their length: SPML paper, table 3).
    """
    if share >= 1 or len(points) == 1:
        return points
    along = np.concatenate([[0.0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    start, stop = along[-1] * (1 - share) / 2, along[-1] * (1 + share) / 2
    kept = along[(along > start) & (along < stop)]
    at = np.unique([start, *kept, stop])
    return np.stack([np.interp(at, along, points[:, axis]) for axis in (0, 1)], axis=1)
