"""How far the network has moved away from the rows that it wrote."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spml_dist.records import BankRows

OVERLAP = 0.5
"""intersection over union of two boxes that are taken for one place of the image"""


class BoxedVectors(NamedTuple):
    """Rows by what they show and where."""

    vector: Tensor
    """[n, C] unit vectors"""
    box: Tensor
    """[n, 4] in shares of the image's sides"""


def drift(old: BoxedVectors | BankRows, new: BoxedVectors | BankRows) -> list[float]:
    """Cosines of new segments with the old ones in the same place of the same image.

    Crops differ from visit to visit and with them the segments: a new one is compared with the old one whose
    box overlaps most, if that is at least half of what both cover.
    """
    if not len(old.box) or not len(new.box):
        return []
    overlap, partner = _overlaps(new.box.float(), old.box.float()).max(dim=1)
    same = overlap >= OVERLAP
    return (new.vector[same].float() * old.vector[partner[same]].float()).sum(dim=1).tolist()


def _overlaps(ours: Tensor, theirs: Tensor) -> Tensor:
    """[n, m] intersection over union of boxes (top, left, bottom, right)."""
    top_left = torch.maximum(ours[:, None, :2], theirs[None, :, :2])
    bottom_right = torch.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    shared = _area((bottom_right - top_left).clamp_(min=0))
    own, other = (_area(box[:, 2:] - box[:, :2]) for box in (ours, theirs))
    return shared / (own[:, None] + other[None, :] - shared).clamp_(min=1e-12)


def _area(sides: Tensor) -> Tensor:
    return sides[..., 0] * sides[..., 1]
