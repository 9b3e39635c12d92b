"""Semantic annotation (SPML, section 3.1): labelled pixels and labelled segments, by class."""

from __future__ import annotations

import torch

from spml_dist.records import Candidates, Pixels, Relation


def relation(pixels: Pixels, candidates: Candidates, num_classes: int, concentration: float) -> Relation:
    """C⁺ = candidates of the pixel's class, C⁻ = candidates of another; the unlabelled take no part."""
    classes = torch.arange(num_classes, device=candidates.semantic.device)
    attract = classes[:, None] == candidates.semantic[None, :]
    repel = (candidates.semantic < num_classes)[None, :] & ~attract
    group = torch.where(pixels.semantic < num_classes, pixels.semantic, -1)
    return Relation(group, attract, repel, concentration)
