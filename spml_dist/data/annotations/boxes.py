"""Boxes: certain outside of all, where every object has one, and by geometry certain near their middles."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np

from spml_dist.data.annotations.image_bounds import OutsideImageError
from spml_dist.errors import ConfigError, DataError
from spml_dist.records import UNLABELLED, Box

CORE = 0.2
"""share of a box's area around its middle that takes the box's class"""

INSIDE = ("cam", "geometry")
"""what labels the inside of boxes: class activation maps, later and elsewhere, or their middles, at once"""

_FORM = "[class, x0, y0, x1, y1]"
_YOLO = "YOLO's centres and sizes, "
_SHARE = 1.01
"""what a share of a side may be at most: 1, with what rounding and careless drawing add"""


def box_labels(
    boxes: Iterable[Box], shape: tuple[int, int], background: int | None, inside: str = "cam"
) -> np.ndarray:
    """Labels of the boxes of all objects: background outside, the inside by geometry or left to maps.

    inside: `cam` leaves it unlabelled, for class activation maps; `geometry` is `core_labels`. shape: (H, W).
    Returns [H, W] uint8: 0..K-1, or 254. Raises ConfigError for another `inside`.
    """
    if inside not in INSIDE:
        raise ConfigError("inside of boxes", inside, f"choose from {', '.join(INSIDE)}")
    if inside == "geometry":
        return core_labels(boxes, shape, background)
    semantic = np.full(shape, UNLABELLED if background is None else background, np.uint8)
    for _, x0, y0, x1, y1 in boxes:
        semantic[window(x0, y0, x1, y1, whole(shape))] = UNLABELLED
    return semantic


def checked_boxes(
    boxes: object, shape: tuple[int, int], num_classes: int, background: int | None, source: str
) -> tuple[Box, ...]:
    """Boxes as a file lists them: [[class, x0, y0, x1, y1], ...] in pixels, x1 and y1 exclusive.

    shape: (H, W) of the image. source: names the file and image in errors. Raises DataError for anything
    else, for boxes of no class or the background, and for those that `fitted_boxes` refuses.
    """
    if not isinstance(boxes, list):
        raise DataError(f"{source}: not a list of boxes", boxes, f"write [{_FORM}, ...]")
    for box in boxes:
        _require_box(box, num_classes, background, source)
    return fitted_boxes(boxes, shape, source, _FORM)


def fitted_boxes(
    boxes: Sequence[Sequence[float]],
    shape: tuple[int, int],
    source: str,
    form: str,
    listed: Sequence[object] | None = None,
) -> tuple[Box, ...]:
    """Boxes (class, x0, y0, x1, y1) of one image, cut at its border: the one rule for all recipes.

    What reaches less than a pixel beyond the border is cut there: rounding makes such boxes.
    shape: (H, W) of the image. source: names the file and image in errors. form: how the file writes a box.
    listed: the boxes as the file writes them, for errors. Raises DataError for boxes that are empty or turned
    around, lie outside the image, reach a pixel or more beyond it, or are shares of its sides, not pixels.
    """
    originals = boxes if listed is None else listed
    _require_pixels(boxes, shape, source, form, originals)
    return tuple(
        _fitted(box, shape, source, form, original) for box, original in zip(boxes, originals, strict=True)
    )


def core_labels(
    boxes: Iterable[Box], shape: tuple[int, int], background: int | None, core: float = CORE
) -> np.ndarray:
    """Label the inner part of every box, and what lies outside all boxes as background.

    The rest of a box stays unlabelled; where boxes overlap, the smaller one is in front, its unlabelled part
    included (Khoreva et al., Simple does it, CVPR 2017, "Box^i").

    shape: (H, W). background: None = outside stays unlabelled. core: share of the area, 0..1.
    Returns [H, W] uint8: 0..K-1, or 254.
    """
    semantic = np.full(shape, UNLABELLED if background is None else background, np.uint8)
    for label, x0, y0, x1, y1 in sorted(boxes, key=area, reverse=True):
        covered = window(x0, y0, x1, y1, whole(shape))
        # Cleared whole before its core is labelled: what lies behind must not show in the rim of a box, where
        # nobody knows how far the object reaches.
        semantic[covered] = UNLABELLED
        # A share of the area is its square root of each side. Rounding must not label a pixel beyond the box.
        semantic[window(*_shrunk(x0, y0, x1, y1, core**0.5), covered)] = label
    return semantic


def _require_box(box: object, num_classes: int, background: int | None, source: str) -> None:
    if not _is_box(box):
        named = isinstance(box, list) and box and isinstance(box[0], str)
        ids = "; classes are ids, not names" if named else ""
        raise DataError(f"{source}: not a box", box, f"write {_FORM} in pixels{ids}")
    if not 0 <= box[0] < num_classes:
        raise DataError(f"{source}: a box's class is not in classes.txt", box[0], f"use 0..{num_classes - 1}")
    if box[0] == background:
        raise DataError(f"{source}: a box of the background", box, "draw boxes around objects only")


def _require_pixels(
    boxes: Sequence[Sequence[float]],
    shape: tuple[int, int],
    source: str,
    form: str,
    originals: Sequence[object],
) -> None:
    """Raise DataError if all boxes would lie in the first pixel: then they are shares, if anything."""
    corners = [number for _, *box in boxes for number in box]
    # Only all boxes of an image together tell shares from pixels: a single small box may lie in the first
    # pixel. An image of one pixel is left alone, for both are the same there.
    if not corners or max(shape) <= _SHARE or min(corners) < 1 - _SHARE or max(corners) > _SHARE:
        return
    height, width = shape
    # As corners they may end before they begin; as YOLO's centres and sizes they are sound.
    yolo = any(x1 <= x0 or y1 <= y0 for _, x0, y0, x1, y1 in boxes)
    what = f"{source}: boxes are {_YOLO if yolo else ''}shares of the image (0..1), not pixels"
    raise DataError(what, originals[0], f"write {form} in pixels: the image is {width}×{height}")


def _fitted(box: Sequence[float], shape: tuple[int, int], source: str, form: str, original: object) -> Box:
    label, x0, y0, x1, y1 = box
    height, width = shape
    size = f"the image is {width}×{height}"
    # Before what lies outside: a centre and size read as corners is often both, and this names the cause.
    if x1 < x0 or y1 < y0:
        what = f"{source}: a box is empty: its corners are swapped or its size is negative"
        raise DataError(what, original, f"write {form}, not YOLO's centre and size; {size}")
    if x1 == x0 or y1 == y0:
        raise DataError(f"{source}: a box is empty", original, f"write {form}, neither side 0; {size}")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise OutsideImageError(f"{source}: a box lies outside the image", original, f"{size}; write {form}")
    # Less than a pixel beyond is the rounding of tools; a pixel or more is another image, or another scale.
    if x0 <= -1 or y0 <= -1 or x1 >= width + 1 or y1 >= height + 1:
        remedy = f"{size}: cut the box at its border; write {form}"
        raise OutsideImageError(f"{source}: a box reaches beyond the image", original, remedy)
    return (
        int(label),
        float(max(x0, 0)),
        float(max(y0, 0)),
        float(min(x1, width)),
        float(min(y1, height)),
    )


def _is_box(entry: object) -> TypeGuard[list[Any]]:
    """Whether an entry has the form [class, x0, y0, x1, y1] in numbers that a float can hold.

    true and false are no numbers.
    """
    if not isinstance(entry, list) or len(entry) != 5 or type(entry[0]) is not int:
        return False
    return all(type(number) in (int, float) and abs(number) <= sys.float_info.max for number in entry[1:])


def area(box: Box) -> float:
    """Square pixels."""
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


def whole(shape: tuple[int, int]) -> tuple[slice, slice]:
    """All pixels of an image of (H, W)."""
    return slice(0, shape[0]), slice(0, shape[1])


def window(x0: float, y0: float, x1: float, y1: float, within: tuple[slice, slice]) -> tuple[slice, slice]:
    """The pixels whose area a box covers by half or more along each axis, at least one of each."""
    return _range(y0, y1, within[0]), _range(x0, x1, within[1])


def _range(start: float, stop: float, within: slice) -> slice:
    # At least one pixel: a box thinner than that would otherwise lose its object without a word.
    first = min(max(round(start), within.start), within.stop - 1)
    return slice(first, max(min(round(stop), within.stop), first + 1))
