"""The annotation files published for PASCAL VOC 2012: object boxes, scribbles, clicks, and SBD's masks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from spml_dist.data.annotations.boxes import Box, fitted_boxes
from spml_dist.data.annotations.image_bounds import require_stated_size
from spml_dist.data.recipes.archives import UNPACK_AGAIN, read_mat, read_xml
from spml_dist.errors import DataError
from spml_dist.records import IGNORED

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


def read_boxes(path: Path, shape: tuple[int, int]) -> tuple[Box, ...]:
    """The objects of an annotation of VOC's devkit: <object> with <name> and <bndbox>; there may be none.

    Boxes count pixels from 1 and include their last one; here they count from 0 and end before x1, y1. Tools
    that count from 0 write 0 at the left and upper border: that is the border too.
    shape: (H, W) of the image. Raises DataError for a file that does not say what its objects are, for one
    of another size, and for boxes that `fitted_boxes` refuses.
    """
    root = _objects(path, shape)
    objects = [(_class(path, each, "name"), *_corners(path, each)) for each in root.findall("object")]
    listed = [(CLASSES[label], *corners) for label, *corners in objects]
    boxes = [(label, _before(x0), _before(y0), x1, y1) for label, x0, y0, x1, y1 in objects]
    return fitted_boxes(boxes, shape, str(path), "<xmin>, <ymin>, <xmax>, <ymax>", listed)


def read_names(path: Path, shape: tuple[int, int]) -> tuple[int, ...]:
    """The ascending classes of the objects of such an annotation, wherever they are."""
    root = _objects(path, shape)
    return tuple(sorted({_class(path, each, "name") for each in root.findall("object")}))


def read_strokes(path: Path, shape: tuple[int, int]) -> list[tuple[int, np.ndarray]]:
    """The scribbles of a ScribbleSup file: <polygon> with its class in <tag> and a <point> of <X>, <Y> each.

    shape: (H, W) of the image; points beyond its border are moved onto it.
    Returns (class, [n, 2] float64 of x, y). Raises DataError for a file without classes or of another size.
    """
    root = read_xml(path)
    polygons = root.findall("polygon")
    if not polygons:
        raise DataError(f"{path}: holds no scribble", None, "give ScribbleSup's pascal_2012/*.xml")
    _require_size(path, root, shape)
    strokes = []
    for polygon in polygons:
        label = _class(path, polygon, "tag")
        points = [
            (_number(path, point, "X"), _number(path, point, "Y")) for point in polygon.findall("point")
        ]
        if points:
            strokes.append((label, np.clip(points, 0, (shape[1] - 1, shape[0] - 1)).astype(np.float64)))
    return strokes


def read_clicks(clicks: Any, shape: tuple[int, int], source: str) -> list[list[int]]:
    """[class, x, y] of What's the Point's clicks {"x", "y", "cls", ...}, which count classes from 1.

    Clicks beside the image (workers made some) are left out. source: names file and image in errors.
    """
    try:
        points = [[_whole(click["cls"]), round(click["x"]), round(click["y"])] for click in clicks]
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise DataError(f"{source}: not a list of clicks", repr(error), UNPACK_AGAIN) from error
    return [point for point in points if 0 <= point[1] < shape[1] and 0 <= point[2] < shape[0]]


def read_sbd(path: Path) -> np.ndarray:
    """GTcls.Segmentation of SBD's cls/ID.mat: [H, W] uint8 of 0..20, or 255.

    Raises DataError for a damaged file, one of inst/, and any other .mat.
    """
    remedy = "give SBD's dataset/cls/*.mat, which hold GTcls.Segmentation"
    content = read_mat(path, "GTcls", remedy)
    if content.dtype.names is None or "Segmentation" not in content.dtype.names or content.size != 1:
        raise DataError(f"{path}: GTcls holds no Segmentation", content.dtype.names, remedy)
    labels = np.asarray(content["Segmentation"].item())
    if labels.ndim != 2 or not labels.size or labels.dtype.kind not in "uif":
        raise DataError(f"{path}: GTcls.Segmentation is no map of classes", labels.shape, remedy)
    outside = labels[((labels < 0) | (labels >= len(CLASSES))) & (labels != IGNORED)]
    if outside.size:
        raise DataError(f"{path}: not a class of VOC", outside.flat[0], remedy)
    return labels.astype(np.uint8)


def _whole(number: Any) -> int:
    if int(number) != float(number):
        raise ValueError(f"class {number}")
    return int(number)


def _objects(path: Path, shape: tuple[int, int]) -> ElementTree.Element:
    root = read_xml(path)
    if root.tag != "annotation" or root.find("polygon") is not None:
        raise DataError(f"{path}: no list of objects", f"<{root.tag}>", "give VOC's Annotations")
    _require_size(path, root, shape)
    return root


def _corners(path: Path, element: ElementTree.Element) -> tuple[float, float, float, float]:
    corners = element.find("bndbox")
    if corners is None:
        raise DataError(f"{path}: an object without <bndbox>", element.findtext("name"), UNPACK_AGAIN)
    x0, y0, x1, y1 = (_number(path, corners, name) for name in ("xmin", "ymin", "xmax", "ymax"))
    return x0, y0, x1, y1


def _before(first: float) -> float:
    """Where a box begins, counted from 0."""
    return first - 1 if first >= 1 else min(first, 0)


def _class(path: Path, element: ElementTree.Element, child: str) -> int:
    name = (element.findtext(child) or "").strip().lower()
    if name not in CLASSES:
        what = f"{path}: no class of VOC in <{child}> of a <{element.tag}>"
        raise DataError(what, name or "nothing", f"use {', '.join(CLASSES)}")
    return CLASSES.index(name)


def _number(path: Path, element: ElementTree.Element, child: str) -> float:
    text = element.findtext(child)
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{path}: <{child}> of a <{element.tag}> is no number", text, UNPACK_AGAIN)
    return number


def _require_size(path: Path, root: ElementTree.Element, shape: tuple[int, int]) -> None:
    size = root.find("size")
    if size is None:
        return
    height, width = (_number(path, size, side) for side in ("height", "width"))
    # Tools that do not open the image write 0.
    require_stated_size((height, width) if height and width else None, shape, str(path))
