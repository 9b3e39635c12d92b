"""Feature affinity (SPML, section 3.1): unlabelled segments take the class of the nearest labelled one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from spml_dist.schema import UNLABELLED, Pixels, Relation, Rows

Scope = Literal["image", "batch"]

TILE = 1 << 22
"""similarities held at a time"""


@torch.no_grad()
def propagate(
    vectors: Tensor,
    semantic: Tensor,
    labelled: Tensor,
    labels: Tensor,
    num_classes: int,
    min_similarity: float,
    images: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Class of each segment, [P] int64: its own, else its nearest labelled segment's, else 254.

    vectors: [P, D] unit vectors and semantic: [P] of the segments; labelled: [L, D] unit vectors and labels:
    [L] in 0..num_classes-1 of those that are searched; min_similarity: lowest cosine of a neighbour; images:
    numbers of the images of both, [P] and [L], where only those of one image are neighbours. Of equally
    near classes it is the smallest, so the order of the segments does not matter.
    """
    found = [torch.empty_like(semantic[:0])]
    height = max(1, TILE // max(1, len(labels)))
    for start in range(0, len(vectors), height):
        rows = slice(start, start + height)
        similarity = vectors[rows] @ labelled.T
        if images is not None:
            similarity.masked_fill_(images[0][rows, None] != images[1][None, :], -torch.inf)
        by_class = similarity.new_full((len(similarity), num_classes), -torch.inf)
        by_class.scatter_reduce_(1, labels.expand(len(similarity), -1), similarity, "amax")
        best, nearest = by_class.max(dim=1)
        found.append(torch.where(best >= min_similarity, nearest, UNLABELLED))
    return torch.where(semantic < num_classes, semantic, torch.cat(found))


def relation(
    pixels: Pixels,
    propagated: Tensor,
    candidates: Rows,
    num_classes: int,
    concentration: float,
    scope: Scope,
) -> Relation:
    """Ĉ⁺ = candidates of the pixel's class, Ĉ⁻ = those of another, classes being propagated ones.

    propagated: [P] int64 of this rank's segments. A segment without a class is unknown: in scope batch it
    takes no part. In scope image, as released, everything attracts it and it attracts everything.
    """
    classes = torch.arange(num_classes, device=candidates.propagated.device)
    attract = classes[:, None] == candidates.propagated[None, :]
    unknown = (candidates.propagated >= num_classes)[None, :]
    repel = ~attract & ~unknown
    if scope == "image":
        attract |= unknown
    own = propagated[pixels.segment]
    # What everything attracts and nothing repels has a loss of 0: such pixels only count in the mean.
    group = torch.where(own < num_classes, own, -1)
    return Relation(group, attract, repel, concentration)


def counted(pixels: Pixels, propagated: Tensor, num_classes: int, scope: Scope) -> Tensor | int:
    """Over how many of the pixels the relation's mean is taken."""
    if scope == "image":
        return len(pixels.segment)
    return (propagated[pixels.segment] < num_classes).sum()
