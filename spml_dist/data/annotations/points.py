"""Points: a class marked at single pixels becomes a disc of labelled pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np

from spml_dist.data.annotations.image_bounds import OutsideImageError
from spml_dist.errors import DataError
from spml_dist.records import UNLABELLED

Point = tuple[int, int, int]
"""class, x, y: whole numbers, x to the right and y down from the top left pixel"""

BEYOND = np.iinfo(np.int32).max
"""squared distance of a pixel that no point reaches"""


def discs(points: object, shape: tuple[int, int], radius: float, num_classes: int, source: str) -> np.ndarray:
    """Label every pixel (x, y) with (x − cx)² + (y − cy)² ≤ radius² of a point; the rest is unlabelled.

    A pixel within several discs belongs to the nearest point, the earlier one where distances are equal.

    points: as `checked_points` takes them.
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
    """Points as a file lists them: [[class, x, y], ...], x to the right and y down from the top left pixel.

    Fractions are moved to the nearest pixel, those less than a pixel beyond the border onto it.
    shape: (H, W) of the image. source: names the file and image in errors. Raises DataError for anything
    else, for points outside the image, and for points that are shares of its sides.
    """
    if not isinstance(points, list):
        raise DataError(f"{source}: not a list of points", points, "write [[class, x, y], ...]")
    checked = [_checked_point(point, shape, num_classes, source) for point in points]
    if any(isinstance(at, float) and 0 < at < 1 for point in points for at in point[1:]):
        _require_pixels(points, shape, source)
    return checked


def _require_pixels(points: list, shape: tuple[int, int], source: str) -> None:
    """Raise DataError if all points would lie in the first pixels: then they are shares, if anything."""
    height, width = shape
    if max(shape) > 2 and all(0 <= at <= 1 for _, *position in points for at in position):
        remedy = f"write [class, x, y] in pixels: the image is {width}×{height}"
        raise DataError(f"{source}: points are shares of the image (0..1), not pixels", points[0], remedy)


def _checked_point(point: object, shape: tuple[int, int], num_classes: int, source: str) -> Point:
    if not _is_point(point):
        named = isinstance(point, list) and point and isinstance(point[0], str)
        ids = "; classes are ids, not names" if named else ""
        raise DataError(f"{source}: not a point", point, f"write [class, x, y] in pixels{ids}")
    label, x, y = point
    height, width = shape
    if not 0 <= label < num_classes:
        raise DataError(
            f"{source}: a point's class is not in classes.txt", label, f"use 0..{num_classes - 1}"
        )
    if not (_is_within(x, width) and _is_within(y, height)):
        place, size = f"x {x}, y {y}", f"the image is {width}×{height}"
        raise OutsideImageError(f"{source}: a point lies outside the image", place, size)
    return label, min(max(round(x), 0), width - 1), min(max(round(y), 0), height - 1)


def _is_within(at: float, side: int) -> bool:
    """Whole numbers are pixels; fractions are places, and rounding may put them just beyond the border."""
    return 0 <= at < side if isinstance(at, int) else -1 < at < side + 1


def _is_point(entry: object) -> TypeGuard[Sequence[Any]]:
    """Whether an entry has the form [class, x, y] in finite numbers; true and false are none."""
    if not isinstance(entry, list | tuple) or len(entry) != 3 or type(entry[0]) is not int:
        return False
    return all(type(at) is int or (type(at) is float and math.isfinite(at)) for at in entry[1:])
