"""From scores of classes on a coarse grid to labels of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from spml_dist.data.annotations.boxes import whole, window
from spml_dist.records import UNLABELLED, Box

ROWS_AT_ONCE = 1 << 22
"""scores that are enlarged at a time: all K maps of a large image would not fit into memory"""


def centres(cells: slice, count: int, pixels: int) -> Tensor:
    """Where the centres of some of `count` cells lie on an axis of so many pixels, [cells] float64."""
    return (torch.arange(cells.start, cells.stop, dtype=torch.float64) + 0.5) * (pixels / count)


def sampled(maps: Tensor, extent: tuple[float, float], rows: Tensor, columns: Tensor) -> Tensor:
    """Maps bilinearly at places between their cells: [B, C, h, w] -> [B, C, r, c].

    extent: pixels that the maps cover; rows: [r], columns: [c] places in pixels from their top left corner.
    """
    y, x = (2 * place / side - 1 for place, side in zip((rows, columns), extent, strict=True))
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).to(maps)
    return grid_sample(maps, grid.expand(len(maps), -1, -1, -1), "bilinear", "border", align_corners=False)


@torch.inference_mode()
def painted(
    scores: Tensor,
    classes: Sequence[int],
    size: tuple[int, int],
    others: Tensor | None = None,
    boxes: Sequence[Box] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Label of each pixel and how sure it is: ([H, W] uint8, [H, W] float32 in 0..1).

    scores: [m, h, w] at least 0, resized bilinearly; classes: the id of each map, ascending. The highest
    score wins, the first of equals; its confidence is its share of all, to which `others` [h, w] may add
    what speaks for classes that cannot be. boxes: of all objects of their classes, which win no pixel
    elsewhere. A pixel for which nothing that can be speaks is unlabelled, 254.
    """
    (height, width), wide = size, scores.shape[-1]
    ids = torch.tensor(classes, dtype=torch.uint8, device=scores.device)
    labels, confidence = np.empty(size, np.uint8), np.empty(size, np.float32)
    maps = scores if others is None else torch.cat([scores, others[None]])
    step = max(1, ROWS_AT_ONCE // (len(maps) * max(width, wide)))
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        strip = _rows(maps, rows, height)
        strip = interpolate(strip[None], size=(strip.shape[1], width), mode="bilinear")[0]
        able = _in_boxes(strip[: len(classes)], classes, boxes, rows, size)
        best, winner = able.max(dim=0)
        speaks = best > 0
        labels[rows] = torch.where(speaks, ids[winner], UNLABELLED).cpu().numpy()
        share = best / strip.sum(dim=0).clamp(min=torch.finfo(strip.dtype).tiny)
        confidence[rows] = torch.where(speaks, share, 0).cpu().numpy()
    return labels, confidence


def _in_boxes(
    strip: Tensor, classes: Sequence[int], boxes: Sequence[Box], rows: slice, size: tuple[int, int]
) -> Tensor:
    """Some rows of an image's maps, [m, rows, W], 0 where a class that has boxes has none."""
    if not boxes:
        return strip
    boxed = [label in {box[0] for box in boxes} for label in classes]
    closed = torch.tensor(boxed)[:, None, None].repeat(1, *strip.shape[1:])
    for label, x0, y0, x1, y1 in boxes:
        if label in classes:
            down, across = window(x0, y0, x1, y1, whole(size))
            first, end = (max(place - rows.start, 0) for place in (down.start, down.stop))
            closed[classes.index(label), first:end, across] = False
    return strip.masked_fill(closed.to(strip.device), 0)


def _rows(maps: Tensor, rows: slice, height: int) -> Tensor:
    """Some of the rows that maps [m, h, w] have once they are `height` high, [m, rows, w]."""
    places = (centres(rows, height, maps.shape[1]) - 0.5).clamp(min=0).to(maps.device)
    above = places.long()
    below = (above + 1).clamp(max=maps.shape[1] - 1)
    share = (places - above)[:, None].to(maps.dtype)
    return maps[:, above] * (1 - share) + maps[:, below] * share
