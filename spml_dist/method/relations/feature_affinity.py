"""Feature affinity (SPML, section 3.1): unlabelled segments take the class that their nearest labelled ones
vote for."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from spml_dist.records import UNLABELLED, Candidates, Pixels, Relation

Scope = Literal["image", "batch", "global"]

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
    neighbours: int = 1,
    margin: float = 0.0,
    remembered: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Class of each segment, [P] int64: its own, else the one its neighbours vote for, else 254; and how sure
    that is, [P] float32: 1 for an own class, the winner's share of the votes for another, 0 for 254.

    vectors: [P, D] unit vectors and semantic: [P] of the segments; labelled: [L, D] unit vectors and labels:
    [L] in 0..num_classes-1 of those that are searched; min_similarity: lowest cosine of a neighbour; images:
    numbers of the images of both, [P] and [L], where only those of one image are neighbours; neighbours: how
    many of the nearest have a vote each, fewer where fewer are near enough; margin: lead of the winner over
    the next class, as a share of the votes cast, below which a segment keeps 254; remembered: [P, k] cosines
    and [P, k] classes of each segment's nearest labelled rows in a bank (a class < 0 or a cosine of -inf: no
    row), which are neighbours like those searched.

    The order of the segments does not matter: of equally near neighbours those of the smallest class vote
    first; of classes with equally many votes the one with the nearest neighbour wins, then the smallest.
    """
    known = semantic < num_classes
    columns = len(labels) + (0 if remembered is None else remembered[0].shape[1])
    height = max(1, TILE // max(1, columns, num_classes))
    classes = torch.full_like(semantic, UNLABELLED)
    shares = torch.zeros_like(semantic, dtype=torch.float32)
    for start in range(0, len(vectors), height):
        rows = slice(start, start + height)
        similarity, voters = vectors[rows] @ labelled.T, labels.expand(len(vectors[rows]), -1)
        if images is not None:
            similarity.masked_fill_(images[0][rows, None] != images[1][None, :], -torch.inf)
        if remembered is not None:
            similarity, voters = _beside(similarity, voters, *(part[rows] for part in remembered))
        similarity.masked_fill_(~(similarity >= min_similarity), -torch.inf)
        classes[rows], shares[rows] = _elect(similarity, voters, num_classes, neighbours, margin)
    return torch.where(known, semantic, classes), torch.where(known, 1, shares)


def _beside(similarity: Tensor, voters: Tensor, cosines: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Put remembered rows beside those that were searched: [t, L + k] similarities and classes."""
    cosines = torch.where(classes >= 0, cosines.to(similarity.dtype), -torch.inf)
    return torch.cat([similarity, cosines], dim=1), torch.cat([voters, classes.clamp(min=0).long()], dim=1)


def _elect(
    similarity: Tensor, voters: Tensor, num_classes: int, neighbours: int, margin: float
) -> tuple[Tensor, Tensor]:
    """The class that wins, [t] int64 or 254, and its share of the votes, [t] float32.

    similarity: [t, N], -inf for those that may not vote; voters: [t, N] int64 their classes.
    """
    votes = _votes(similarity, voters, num_classes, neighbours)
    nearest = similarity.new_full(votes.shape, -torch.inf)
    nearest.scatter_reduce_(1, voters, similarity, "amax")
    most, cast = votes.amax(dim=1), votes.sum(dim=1)
    winner = nearest.masked_fill(votes < most[:, None], -torch.inf).argmax(dim=1)
    next_most = votes.scatter(1, winner[:, None], 0).amax(dim=1)
    elected = (cast > 0) & ((most - next_most) / cast >= margin)
    return torch.where(elected, winner, UNLABELLED), torch.where(elected, most / cast, 0)


def _votes(similarity: Tensor, voters: Tensor, num_classes: int, neighbours: int) -> Tensor:
    """How many of the nearest are of each class, [t, K] int64."""
    last = similarity.topk(min(neighbours, similarity.shape[1]), dim=1).values[:, -1:]
    nothing = voters.new_zeros(len(similarity), num_classes)
    nearer = nothing.scatter_add(1, voters, (similarity > last).long())
    # Which of those as near as the last place topk returns is its own affair: the places left go by class.
    equal = nothing.scatter_add(1, voters, ((similarity == last) & (similarity > -torch.inf)).long())
    left = neighbours - nearer.sum(dim=1, keepdim=True)
    before = equal.cumsum(dim=1) - equal
    return nearer + (left - before).clamp(min=0).minimum(equal)


def relation(
    pixels: Pixels,
    propagated: Tensor,
    candidates: Candidates,
    num_classes: int,
    concentration: float,
    scope: Scope,
) -> Relation:
    """Ĉ⁺ = candidates of the pixel's class, Ĉ⁻ = those of another, classes being propagated ones.

    propagated: [P] int64 of this rank's segments. A segment without a class is unknown: in scopes batch
    and global it takes no part. In scope image, as released, everything attracts it and it attracts
    everything.
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
