"""Semantic co-occurrence (SPML, section 3.1): images that share a tag attract, all others repel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spml_dist.records import Candidates, Pixels, Relation


def relation(
    pixels: Pixels,
    tags: Tensor,
    tags_known: Tensor,
    candidates: Candidates,
    concentration: float,
    ignore_classes: Sequence[int] = (),
    own_repels: bool = False,
) -> Relation:
    """O⁺ = segments of images that share a tag with the pixel's image, O⁻ = those of images that share none.

    tags: [B, K] bool and tags_known: [B] bool of this rank's images. ignore_classes (the background,
    and classes that every image shows) are left out. Images whose tags are unknown take no part; an
    image known to hold no class is negative to everything.
    """
    counted = torch.ones(tags.shape[1], device=tags.device)
    counted[list(ignore_classes)] = 0
    shared = (tags * counted) @ candidates.tags.to(counted).T > 0
    known = tags_known[:, None] & candidates.tags_known[None, :]
    group = torch.where(tags_known[pixels.image], pixels.image, -1)
    return Relation(group, shared & known, ~shared & known, concentration, own_repels)
