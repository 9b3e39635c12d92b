"""Choosing rows and queries: functions of the global batch, the same whichever rank computes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spml_dist.bank.rows import ANNOTATED
from spml_dist.bank.store import Store
from spml_dist.hashing import uniform
from spml_dist.records import Neighbours


def union_of_neighbours(neighbours: Sequence[Neighbours], most: int) -> tuple[Tensor, Tensor]:
    """At most `most` rows out of all queries' neighbours: (image, segment), [m] each, sorted by both, in main
    memory.

    First come the rows that are some query's nearest, then the second nearest, and so on; among equals the
    more similar ones, then by image and segment.
    """
    if not neighbours:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
    image, segment, similarity = (
        torch.cat([getattr(each, name).flatten() for each in neighbours])
        for name in ("image", "segment", "similarity")
    )
    places = [torch.arange(e.image.shape[1], device=image.device).expand_as(e.image) for e in neighbours]
    rank = _rank(torch.cat([each.flatten() for each in places]), similarity)
    # The answers that name a row side by side, the best of them first: stable sorts, the last key first.
    order = rank.argsort(stable=True)
    for key in (segment, image):
        order = order[key[order].argsort(stable=True)]
    image, segment, rank = image[order], segment[order], rank[order]
    first = segment >= 0
    first[1:] &= (image[1:] != image[:-1]) | (segment[1:] != segment[:-1])
    best = torch.where(first, rank, torch.iinfo(rank.dtype).max).argsort(stable=True)[:most].sort().values
    # Sorted where the answers are: the host is sent the chosen rows alone, at once.
    image, segment, there = torch.stack([image[best], segment[best].long(), first[best].long()]).cpu()
    return image[there > 0], segment[there > 0].int()


def _rank(place: Tensor, similarity: Tensor) -> Tensor:
    """[n] int64, smaller for a better answer: by place, then by similarity, [n] float32, largest first."""
    bits = (similarity + 0.0).view(torch.int32)  # of which 0 has one pattern then
    # A float's bits in the order of its value: those of negative ones run the other way.
    return (place << 32) - torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def segment_numbers(image: Tensor) -> Tensor:
    """[Q] int64: how many segments of its image come before each, in the order of the queries."""
    order = torch.argsort(image, stable=True)
    first = torch.searchsorted(image[order], image[order])
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(image), device=image.device) - first)


def draw_queries(image: Tensor, segment: Tensor, most: int, seed: int, step: int) -> Tensor:
    """Which of a step's segments look up their neighbours, ascending: all, or a draw of `most` of them."""
    if len(image) <= most:
        return torch.arange(len(image), device=image.device)
    return torch.argsort(uniform(seed, step, image, segment), stable=True)[:most].sort().values


def slots_of_rows(store: Store, image: Tensor, segment: Tensor) -> Tensor:
    """Slots of those of the rows that a store has, [≤ m] int64, in main memory; image, segment: there too."""
    slots = []
    for number, which in zip(image.tolist(), segment.tolist(), strict=True):
        own = store.slots_of(number)
        if which < len(own):
            slots.append(own[which])
    return torch.tensor(slots, dtype=torch.int64)


def draw_probabilities(annotated: int, others: int, sampled: int) -> tuple[float, float]:
    """With which probability an annotated row is drawn, and any other, so that about `sampled` are in all.

    annotated, others: rows to draw from. Half of the drawn are annotated where there are as many: they alone
    attract by annotation, and where labels are sparse a plain draw has hardly any.
    """
    of_annotated = min(annotated, max(sampled / 2, sampled - others))
    return of_annotated / max(1, annotated), (sampled - of_annotated) / max(1, others)


def draw_rows(store: Store, slots: Tensor, share: tuple[float, float], seed: int, step: int) -> Tensor:
    """Those of the slots whose rows this step draws, each by its own hash.

    share: probabilities of an annotated row and of any other, as `draw_probabilities` gives them.
    """
    chance = uniform(seed, step, store.rows.image[slots], store.rows.segment[slots])
    of_kind = chance.new_tensor(share)[(store.rows.source[slots] != ANNOTATED).long()]
    return slots[chance < of_kind]


def row_weights(source: Tensor, sure: int, annotated: int, others: int) -> Tensor:
    """[n] float32: how many rows of the bank each candidate stands for.

    source: [n] uint8 of the candidates, of which the first `sure` stand for themselves and the rest was
    drawn; annotated, others: rows of which they were drawn. A drawn row stands for its part of those of its
    kind.
    """
    weight = torch.ones(len(source), device=source.device)
    for kind, rows in ((source == ANNOTATED, annotated), (source != ANNOTATED, others)):
        weight[sure:][kind[sure:]] = rows / torch.count_nonzero(kind[sure:])
    return weight
