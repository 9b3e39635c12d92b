"""Masks as COCO writes them: polygons and run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from spml_dist.errors import DataError

_FARTHEST = 1e6


def decode(segmentation: Any, shape: tuple[int, int], source: str) -> np.ndarray:
    """The pixels of a COCO segmentation, [H, W] bool of `shape`.

    segmentation: a list of polygons [x, y, x, y, ...], or {"counts": runs or their text, "size": [H, W]}.
    source: names file and annotation in errors. Raises DataError for anything else and for another size.
    """
    try:
        pixels = _pixels(segmentation, shape)
    except Exception as error:  # whatever pycocotools' C part meets, plain Exception included
        raise DataError(f"{source}: not a segmentation of COCO", str(error), "download it again") from error
    if pixels.shape != tuple(shape):
        raise DataError(
            f"{source}: a segmentation of another size",
            f"{pixels.shape[1]}×{pixels.shape[0]}, not {shape[1]}×{shape[0]}",
            "take images and annotations from the same release of the data set",
        )
    return pixels


def _pixels(segmentation: Any, shape: tuple[int, int]) -> np.ndarray:
    from pycocotools import mask

    if isinstance(segmentation, list):
        return mask.decode(mask.merge(mask.frPyObjects(_polygons(segmentation), *shape))).astype(bool)
    counts, (height, width) = segmentation["counts"], segmentation["size"]
    if isinstance(counts, str):
        return mask.decode({"counts": counts, "size": [height, width]}).astype(bool)
    # pycocotools writes beyond its memory where the runs of a list do not fill the image.
    runs = np.asarray(counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"runs do not fill {width}×{height} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width, order="F")


def _polygons(segmentation: list) -> list[list[float]]:
    # Fewer than three points enclose nothing, and four numbers would be taken for a box.
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    if not polygons:
        raise ValueError("no polygon of three points")
    if any(len(polygon) % 2 for polygon in polygons):
        raise ValueError("a polygon's last point has no y")
    if not all(abs(number) <= _FARTHEST for polygon in polygons for number in polygon):
        raise ValueError("a polygon beyond any image")
    return polygons
