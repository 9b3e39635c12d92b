"""Cross-entropy of the joint classifier on the labelled pixels (SPML, appendix A.4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SPARSE = 1 / 8
"""share of labelled pixels up to which scores are interpolated at these alone, by four gathered rows each"""


def cross_entropy(logits: Tensor, semantic: Tensor) -> Tensor:
    """Sum over the labelled pixels of -log softmax at the label, scores being resized to the labels' size.

    logits: [B, K, h, w]; semantic: [B, H, W] integers, 0..K-1 a class, all else not counted. Scores are
    resized bilinearly (align_corners=False). Weak labels are few: of scribbles on 1 % of the pixels nothing
    of size B·K·H·W is made.
    """
    labelled = semantic < logits.shape[1]
    place = labelled.flatten().nonzero()[:, 0]  # the host waits for a device this once
    if len(place) > SPARSE * labelled.numel():
        size = (semantic.shape[1], semantic.shape[2])
        full = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        target = torch.where(labelled, semantic.long(), -100)
        return functional.cross_entropy(full, target, ignore_index=-100, reduction="sum")
    height, width = semantic.shape[1:]
    image, y, x = place // (height * width), place // width % height, place % width
    scores = bilinear(logits, image, y, x, (height, width))
    return functional.cross_entropy(scores, semantic.flatten()[place].long(), reduction="sum")


def bilinear(maps: Tensor, image: Tensor, y: Tensor, x: Tensor, size: tuple[int, int]) -> Tensor:
    """What `interpolate(maps, size, mode="bilinear", align_corners=False)` has at some pixels: [n, K].

    maps: [B, K, h, w]; image, y, x: [n] int64, pixels of the resized maps.
    """
    height, width = maps.shape[2:]
    top, bottom, down = _between(y, height, size[0], maps.dtype)
    left, right, across = _between(x, width, size[1], maps.dtype)
    cells = maps.movedim(1, -1)
    above = torch.lerp(cells[image, top, left], cells[image, top, right], across)
    below = torch.lerp(cells[image, bottom, left], cells[image, bottom, right], across)
    return torch.lerp(above, below, down)


def _between(place: Tensor, cells: int, pixels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The cells before and after a pixel's centre, and how far it is from the first to the second: [n, 1]."""
    centre = ((place.to(dtype) + 0.5) * (cells / pixels) - 0.5).clamp(min=0)
    before = centre.long().clamp(max=cells - 1)
    return before, (before + 1).clamp(max=cells - 1), (centre - before)[:, None]
