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
    own: Tensor | None = None,
    in_bank: Tensor | None = None,
) -> Relation:
    """O⁺ = segments of images that share a tag with the pixel's image, O⁻ = those of images that share none.

    tags: [B, K] bool and tags_known: [B] bool of this rank's images. ignore_classes (the background,
    and classes that every image shows) are left out. Images whose tags are unknown take no part; an
    image known to hold no class is negative to everything.

    own: [B] int64, number of each image as `Candidates.image`, to leave a pixel's own image out of O⁺ where
    another image shares a tag, here or among in_bank: [B] int64 rows of a bank that share one. Otherwise an
    image, which shares all its tags with itself, mostly attracts itself, whatever its segments show.
    """
    counted = torch.ones(tags.shape[1], device=tags.device)
    counted[list(ignore_classes)] = 0
    shared = (tags * counted) @ candidates.tags.to(counted).T > 0
    known = tags_known[:, None] & candidates.tags_known[None, :]
    group = torch.where(tags_known[pixels.image], pixels.image, -1)
    attract = shared & known
    if own is not None:
        others = attract & (candidates.image[None, :] != own[:, None])
        elsewhere = others.any(dim=1) if in_bank is None else others.any(dim=1) | (in_bank > 0)
        attract = torch.where(elsewhere[:, None], others, attract)
    return Relation(group, attract, ~shared & known, concentration, own_repels)
