"""Boxes: certain inside near their middle, and, where every object has one, certain outside of all."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from spml_dist.schema import UNLABELLED, Box

CORE = 0.2
"""share of a box's area around its middle that takes the box's class"""


def box_seeds(
    boxes: Iterable[Box], shape: tuple[int, int], background: int | None, core: float = CORE
) -> np.ndarray:
    """Label the inner part of every box, and what lies outside all boxes as background.

    The rest of a box stays unlabelled; where boxes overlap, the smaller one is in front, its unlabelled part
    included (Khoreva et al., Simple does it, CVPR 2017, "Box^i").

    shape: (H, W). background: None = outside stays unlabelled. core: share of the area, 0..1.
    Returns [H, W] uint8: 0..K-1, or 254.
    """
    semantic = np.full(shape, UNLABELLED if background is None else background, np.uint8)
    for label, *corners in sorted(boxes, key=_area, reverse=True):
        semantic[_window(*corners, shape)] = UNLABELLED
        semantic[_window(*_shrunk(*corners, core**0.5), shape)] = label
    return semantic


def _area(box: Box) -> float:
    _, x0, y0, x1, y1 = box
    return (x1 - x0) * (y1 - y0)


def _shrunk(x0: float, y0: float, x1: float, y1: float, scale: float) -> tuple[float, float, float, float]:
    x, y, half_width, half_height = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2, (y1 - y0) / 2
    return (
        x - scale * half_width,
        y - scale * half_height,
        x + scale * half_width,
        y + scale * half_height,
    )


def _window(x0: float, y0: float, x1: float, y1: float, shape: tuple[int, int]) -> tuple[slice, slice]:
    """The pixels whose area a box covers by half or more along each axis, at least one of each."""
    return _range(y0, y1, shape[0]), _range(x0, x1, shape[1])


def _range(start: float, stop: float, size: int) -> slice:
    first = min(max(round(start), 0), size - 1)
    return slice(first, max(min(round(stop), size), first + 1))
