"""Points: a class said at single pixels becomes a disc of labelled pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from spml_dist.data.annotations.outside import Outside
from spml_dist.errors import DataError
from spml_dist.records import UNLABELLED

Point = tuple[int, int, int]
"""class, x, y: whole numbers, x to the right and y down from the top left pixel"""

BEYOND = np.iinfo(np.int32).max
"""squared distance of a pixel that no point reaches"""


def discs(points: object, shape: tuple[int, int], radius: float, num_classes: int, source: str) -> np.ndarray:
    """Label every pixel (x, y) with (x − cx)² + (y − cy)² ≤ radius² of a point; the rest is unlabelled.

    A pixel within several discs belongs to the nearest point, the earlier one where distances are equal.

    points: list of [class, x, y], whole numbers, x to the right and y down from the top left pixel.
    shape: (H, W) in pixels. source: names the file and image in errors.
    Returns [H, W] uint8: 0..K-1, or 254. Raises DataError for anything else than such points.
    """
    label, squared = nearest(checked_points(points, shape, num_classes, source), shape, radius)
    label[squared > radius**2] = UNLABELLED
    return label


def nearest(points: Iterable[Point], shape: tuple[int, int], reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Class and squared distance of the point nearest to each pixel, the earlier one of equals.

    reach: in pixels; what is farther from every point may be left out. Returns [H, W] uint8 of 0..K-1, or 254
    where left out, and [H, W] int32 in pixels², or BEYOND.
    """
    label = np.full(shape, UNLABELLED, np.uint8)
    squared = np.full(shape, BEYOND, np.int32)
    side = int(min(reach, sum(shape))) + 1
    for each, x, y in points:
        window = slice(max(y - side, 0), y + side + 1), slice(max(x - side, 0), x + side + 1)
        rows, columns = (np.arange(cut.start, min(cut.stop, n)) for cut, n in zip(window, shape, strict=True))
        distance = ((rows - y) ** 2)[:, None] + ((columns - x) ** 2)[None]
        closer = distance < squared[window]
        label[window][closer] = each
        squared[window][closer] = distance[closer]
    return label, squared


def checked_points(points: object, shape: tuple[int, int], num_classes: int, source: str) -> list[Point]:
    """Points as a file lists them. Raises DataError for anything but [[class, x, y], ...] in the image."""
    if not isinstance(points, list):
        raise DataError(f"{source}: not a list of points", points, "write [[class, x, y], ...]")
    return [_checked_point(point, shape, num_classes, source) for point in points]


def _checked_point(point: object, shape: tuple[int, int], num_classes: int, source: str) -> Point:
    if not _is_point(point):
        named = isinstance(point, list) and point and isinstance(point[0], str)
        ids = "; classes are ids, not names" if named else ""
        raise DataError(f"{source}: not a point", point, f"write [class, x, y] in whole numbers{ids}")
    label, x, y = map(int, point)
    height, width = shape
    if not 0 <= label < num_classes:
        raise DataError(
            f"{source}: a point's class is not in classes.txt", label, f"use 0..{num_classes - 1}"
        )
    if not (0 <= x < width and 0 <= y < height):
        seen, size = f"x {x}, y {y}", f"the image is {width}×{height}"
        raise Outside(f"{source}: a point lies outside the image", seen, size)
    return label, x, y


def _is_point(entry: object) -> bool:
    """Whether an entry has the form [class, x, y] in whole numbers: 10.0 is one, true and false are none."""
    if not isinstance(entry, Sequence) or len(entry) != 3 or type(entry[0]) is not int:
        return False
    return all(type(at) is int or (type(at) is float and at.is_integer()) for at in entry[1:])
