"""Points: a class said at single pixels becomes a disc of labelled pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spml_dist.errors import DataError
from spml_dist.schema import UNLABELLED


def discs(points: object, shape: tuple[int, int], radius: float, num_classes: int, source: str) -> np.ndarray:
    """Label every pixel (x, y) with (x − cx)² + (y − cy)² ≤ radius² of a point; the rest is unlabelled.

    A pixel within several discs belongs to the nearest point, the earlier one where distances are equal.

    points: list of [class, x, y], whole numbers, x to the right and y down from the top left pixel.
    shape: (H, W) in pixels. source: names the file and image in errors.
    Returns [H, W] uint8: 0..K-1, or 254. Raises DataError for anything else than such points.
    """
    checked = _checked(points, shape, num_classes, source)
    semantic = np.full(shape, UNLABELLED, np.uint8)
    nearest = np.full(shape, np.inf)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    for label, x, y in checked:
        distance = (columns - x) ** 2 + (rows - y) ** 2
        won = (distance <= radius**2) & (distance < nearest)
        semantic[won] = label
        nearest[won] = distance[won]
    return semantic


def _checked(
    points: object, shape: tuple[int, int], num_classes: int, source: str
) -> list[tuple[int, int, int]]:
    if not isinstance(points, list):
        raise DataError(f"{source}: not a list of points", points, "write [[class, x, y], ...]")
    return [_checked_point(point, shape, num_classes, source) for point in points]


def _checked_point(
    point: object, shape: tuple[int, int], num_classes: int, source: str
) -> tuple[int, int, int]:
    if not _is_point(point):
        raise DataError(f"{source}: not a point", point, "write [class, x, y] in whole numbers")
    label, x, y = point
    height, width = shape
    if not 0 <= label < num_classes:
        raise DataError(
            f"{source}: a point's class is not in classes.txt", label, f"use 0..{num_classes - 1}"
        )
    if not (0 <= x < width and 0 <= y < height):
        raise DataError(
            f"{source}: a point lies outside the picture", f"x {x}, y {y}", f"the picture is {width}×{height}"
        )
    return label, x, y


def _is_point(entry: object) -> bool:
    """Whether an entry has the form [class, x, y] in whole numbers (true and false are none)."""
    return isinstance(entry, Sequence) and len(entry) == 3 and all(type(number) is int for number in entry)
