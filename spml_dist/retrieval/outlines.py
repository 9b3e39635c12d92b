"""Outlines of segments: run lengths on the embedding grid, as COCO writes them, and paths in pixels."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from pycocotools import mask as coco

from spml_dist.inference.whole_image import Geometry, image_geometry

FINENESS = 4
"""corners of cells are found on a grid so many times as fine"""
Pixels = tuple[np.ndarray, np.ndarray]
"""[FINENESS·h] and [FINENESS·w] int64: the image's row and column at the middle of each fine cell"""


def encode(numbers: np.ndarray, count: int) -> list[bytes]:
    """Run lengths of segments 0..count-1 of a grid. numbers: [h, w] integers, -1 = of no segment."""
    members = (numbers[:, :, None] == np.arange(count)).astype(np.uint8)
    return [each["counts"] for each in coco.encode(np.asfortranarray(members))]


def decode(outline: bytes, grid: tuple[int, int]) -> np.ndarray:
    """[h, w] bool: the segment's cells."""
    return coco.decode({"size": list(grid), "counts": outline}).view(bool)


@lru_cache(maxsize=256)
def geometry_of(image: tuple[int, int], longer_side: int | None, grid: tuple[int, int]) -> Geometry:
    """Where pixels and cells of an image of this size, (height, width), meet."""
    return image_geometry(image, longer_side, grid)


@lru_cache(maxsize=256)
def pixels_of(image: tuple[int, int], longer_side: int | None, grid: tuple[int, int]) -> Pixels:
    """Where the fine cells of an image of this size, (height, width), lie on it."""
    return pixels(geometry_of(image, longer_side, grid))


def pixels(geometry: Geometry) -> Pixels:
    """Where the fine cells lie on the image."""
    return tuple(
        np.interp((np.arange(FINENESS * (len(each) - 1)) + 0.5) / FINENESS, np.arange(len(each)), each)
        .round()
        .astype(np.int64)
        for each in edges(geometry)
    )


def path(member: np.ndarray, where: Pixels) -> str:
    """The boundary of a segment as an SVG path in pixels of the image; "" for none.

    member: [h, w] bool. Corners lie on the edges between cells, to a pixel.
    """
    cells = member.view(np.uint8)
    left, top, width, height = cv2.boundingRect(cells)
    if not width:
        return ""
    part = cells[top : top + height, left : left + width]
    fine = cv2.resize(part, None, fx=FINENESS, fy=FINENESS, interpolation=cv2.INTER_NEAREST)
    begin = FINENESS * left, FINENESS * top
    contours, _ = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=begin)
    rows, columns = where
    steps = []
    for contour in contours:
        corners = np.stack([columns[contour[:, 0, 0]], rows[contour[:, 0, 1]]], axis=1)
        steps.append(f"M{' '.join(map(str, corners.ravel().tolist()))}Z")  # M is followed by lines
    return "".join(steps)


def edges(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Pixels at which the cells of the image begin, and where the last ends: of rows and of columns."""
    return tuple(
        np.append(pixels[pixels >= 0], len(cells))
        for pixels, cells in (
            (geometry.row_of_cell, geometry.cell_of_row),
            (geometry.column_of_cell, geometry.cell_of_column),
        )
    )  # type: ignore[return-value]  # two of them


def middle(member: np.ndarray, geometry: Geometry) -> tuple[int, int]:
    """(x, y) in pixels of a place well inside a segment that has a cell."""
    distance = cv2.distanceTransform(np.pad(member, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    edges_y, edges_x = edges(geometry)
    centre = [(each[at] + each[at + 1] - 1) // 2 for each, at in ((edges_x, column), (edges_y, row))]
    return int(max(centre[0], 0)), int(max(centre[1], 0))
