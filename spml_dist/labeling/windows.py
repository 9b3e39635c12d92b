"""Maps of large images put together from overlapping windows."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor


def windows(length: int, side: int, overlap: int) -> list[slice]:
    """Ranges that cover 0..length, evenly spread, of `side` each, neighbours sharing at least `overlap`.

    overlap: taken as half a side where it is more. One range of `length` where that is no more than a side.
    """
    if length <= side:
        return [slice(0, length)]
    last = ceil((length - side) / (side - min(overlap, side // 2)))
    starts = (number * (length - side) // last for number in range(last + 1))
    return [slice(start, start + side) for start in starts]


def blended(
    shape: tuple[int, int], side: int, overlap: int, part: Callable[[slice, slice], Tensor]
) -> Tensor:
    """Maps [..., h, w] of a grid of `shape`, of which `part` computes windows, [..., rows, columns].

    Where windows overlap, each counts the less the nearer its border is, so that there is no seam.
    """
    rows, columns = (windows(length, side, overlap) for length in shape)
    if len(rows) == len(columns) == 1:
        return part(rows[0], columns[0])
    total = weights = torch.zeros(0)
    for row in rows:
        for column in columns:
            maps = part(row, column)
            if not len(weights):
                total, weights = maps.new_zeros(*maps.shape[:-2], *shape), maps.new_zeros(shape)
            weight = torch.outer(*(_ramp(size, overlap, maps) for size in maps.shape[-2:]))
            total[..., row, column] += maps * weight
            weights[row, column] += weight
    return total.div_(weights)


def _ramp(length: int, overlap: int, like: Tensor) -> Tensor:
    """[length] weights that rise from both ends over an overlap, up to 1."""
    place = torch.arange(1, length + 1, dtype=like.dtype, device=like.device)
    return (torch.minimum(place, length + 1 - place) / (overlap + 1)).clamp(max=1)
