"""Masks as COCO writes them: polygons and run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from spml_dist.data.annotations.image_bounds import OutsideImageError
from spml_dist.errors import DataError

_AGAIN = "export it again"
_LONGEST = 4e6
"""pixels along all polygons of one object: pycocotools' memory grows with them, not with the image"""


def outline_fault(segmentation: Any) -> str | None:
    """Why a segmentation has no outline: it is absent, or of no form that COCO has. None = it has one."""
    if isinstance(segmentation, dict):
        return None if {"counts", "size"} <= set(segmentation) else "run lengths without counts or size"
    if segmentation is None or segmentation == []:
        return "no segmentation"
    if not isinstance(segmentation, list):
        return "neither polygons nor run lengths"
    if not all(isinstance(polygon, list) for polygon in segmentation):
        return "one polygon without the brackets of a list of polygons"
    if not any(segmentation):
        return "no segmentation"
    kinds = {type(number) for polygon in segmentation for number in polygon}
    if list in kinds:
        return "points as pairs, not x, y, x, y, ..."
    return None if kinds <= {int, float} else "polygons of other than numbers"


def encloses_nothing(segmentation: Any) -> bool:
    """Whether a segmentation is polygons of fewer than three points alone."""
    return isinstance(segmentation, list) and not _polygons(segmentation)


def decode(segmentation: Any, shape: tuple[int, int], source: str) -> np.ndarray:
    """The pixels of a COCO segmentation, [H, W] bool of `shape`; none where it encloses nothing.

    segmentation: a list of polygons [x, y, x, y, ...], or {"counts": runs or their text, "size": [H, W]}.
    source: names file and annotation in errors. Raises DataError for anything else and for another size.
    """
    if fault := outline_fault(segmentation):
        remedy = "draw its outline, or pack --labels boxes or tags"
        raise DataError(f"{source}: not a segmentation of COCO", fault, remedy)
    if isinstance(segmentation, list):
        return _filled(_polygons(segmentation), shape, source)
    stated = segmentation["size"]
    if stated != list(shape):
        size = "×".join(map(str, stated[::-1])) if isinstance(stated, list) else repr(stated)
        raise OutsideImageError(
            f"{source}: a segmentation of another size",
            f"{size}, not {shape[1]}×{shape[0]}",
            "take images and annotations from the same release of the data set",
        )
    try:
        return _filled_runs(segmentation["counts"], *shape)
    except Exception as error:  # whatever pycocotools' C part meets, plain Exception included
        raise DataError(f"{source}: not a segmentation of COCO", str(error), "export it again") from error


def _polygons(segmentation: list) -> list[list[float]]:
    # Fewer than three points enclose nothing, and four numbers would be taken for a box.
    return [polygon for polygon in segmentation if len(polygon) >= 6]


def _filled(polygons: list[list[float]], shape: tuple[int, int], source: str) -> np.ndarray:
    from pycocotools import mask

    if not polygons:
        return np.zeros(shape, bool)
    if any(len(polygon) % 2 for polygon in polygons):
        raise DataError(f"{source}: not a segmentation of COCO", "a polygon's last point has no y", _AGAIN)
    try:
        corners = [np.array(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
    except OverflowError as error:
        raise DataError(f"{source}: not a segmentation of COCO", str(error), _AGAIN) from error
    _require_near(np.concatenate(corners), shape, source)
    length = sum(np.abs(np.diff(each, axis=0, append=each[:1])).sum() for each in corners)
    if length > _LONGEST:
        raise DataError(f"{source}: polygons too long to draw", f"{length:.0f} pixels", _AGAIN)
    return mask.decode(mask.merge(mask.frPyObjects(polygons, *shape))).astype(bool)


def _require_near(points: np.ndarray, shape: tuple[int, int], source: str) -> None:
    """Raise OutsideImageError for polygons that have no part in the image, or a point far away from it.

    What an annotator draws across the border is cut there; a side beyond it, it was drawn elsewhere.
    """
    if not np.isfinite(points).all():
        raise DataError(f"{source}: not a segmentation of COCO", "a point that is no number", _AGAIN)
    sides = np.array(shape[::-1])
    size, remedy = f"the image is {shape[1]}×{shape[0]}", "write pixels of the image as it is shown"
    if max(shape) > 1 and points.min() >= 0 and points.max() <= 1:
        what = "a polygon of shares of the image (0..1), not pixels"
        raise DataError(f"{source}: {what}", _coordinates(points[0]), f"{size}; write pixels")
    if (points.max(axis=0) < 0).any() or (points.min(axis=0) > sides).any():
        raise OutsideImageError(
            f"{source}: a polygon lies outside the image", _coordinates(points[0]), f"{size}; {remedy}"
        )
    far = (points < -sides.max()) | (points > sides + sides.max())
    if far.any():
        point = _coordinates(points[far.any(axis=1)][0])
        raise OutsideImageError(
            f"{source}: a polygon reaches far beyond the image", point, f"{size}; {remedy}"
        )


def _coordinates(point: np.ndarray) -> str:
    return f"x {point[0]:g}, y {point[1]:g}"


def _filled_runs(counts: Any, height: int, width: int) -> np.ndarray:
    # pycocotools leaves memory as it was, or writes beyond it, where the runs do not fill the image.
    runs = _runs_of(counts) if isinstance(counts, str) else np.asarray(counts)
    area = height * width
    whole = runs.ndim == 1 and runs.dtype.kind in "iu" and (runs >= 0).all() and (runs <= area).all()
    if not whole or runs.sum() != area:
        raise ValueError(f"runs do not fill {width}×{height} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width, order="F")


def _runs_of(text: str) -> np.ndarray:
    """Run lengths of COCO's text: 5 bits a character, the lowest first; 32 says that more of them follow.

    From the fourth on they are differences from the run before the last.
    """
    parts = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(parts < 32)
    if not len(ends) or ends[-1] != len(parts) - 1 or parts.min() < 0 or parts.max() > 63:
        raise ValueError("not a text of run lengths")
    starts = np.concatenate([[0], ends[:-1] + 1])
    # Character i of a run carries its bits 5i to 5i+4; the last one's 16 is the sign, extended to the left.
    shift = 5 * (np.arange(len(parts)) - np.repeat(starts, ends - starts + 1))
    if shift.max() > 35:
        raise ValueError("a run longer than any image")
    runs = np.add.reduceat((parts & 31) << shift, starts)
    runs -= np.where(parts[ends] & 16, np.int64(32) << shift[ends], 0)
    # Runs 1, 3, 5, ... and 2, 4, 6, ... are two chains of differences; run 0 stands alone.
    runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return runs
