"""Choosing rows and queries: functions of the global batch, the same whichever rank computes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spml_dist.bank.rows import ANNOTATED
from spml_dist.bank.search.filters import Filterable
from spml_dist.bank.store import Store
from spml_dist.hashing import uniform
from spml_dist.records import Neighbours


def union_of_neighbours(neighbours: Sequence[Neighbours], most: int) -> tuple[Tensor, Tensor]:
    """At most `most` rows out of all queries' neighbours: (image, segment), [m] each, sorted by both.

    First come the rows that are some query's nearest, then the second nearest, and so on; among equals the
    more similar ones, then by image and segment.
    """
    if not neighbours:
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)
    image, segment, similarity = (
        torch.cat([getattr(each, name).flatten() for each in neighbours]).cpu().numpy()
        for name in ("image", "segment", "similarity")
    )
    place = np.concatenate([np.tile(np.arange(e.image.shape[1]), len(e.image)) for e in neighbours])
    there = segment >= 0
    image, segment, similarity, place = image[there], segment[there], similarity[there], place[there]
    # A row's best place comes first, and of the same place its best similarity.
    order = np.lexsort((-similarity, place, segment, image))
    image, segment, similarity, place = image[order], segment[order], similarity[order], place[order]
    first = np.ones(len(image), bool)
    first[1:] = (np.diff(image) != 0) | (np.diff(segment) != 0)
    image, segment, similarity, place = image[first], segment[first], similarity[first], place[first]
    kept = np.sort(np.lexsort((segment, image, -similarity, place))[:most])
    device = neighbours[0].image.device
    return torch.from_numpy(image[kept]).to(device), torch.from_numpy(segment[kept]).to(device)


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
    """Slots of those of the rows that a store has, [≤ m] int64."""
    slots = []
    for number, which in zip(image.tolist(), segment.tolist(), strict=True):
        own = store.slots_of(number)
        if which < len(own):
            slots.append(own[which])
    return torch.tensor(slots, dtype=torch.int64, device=image.device)


def strata(rows: Filterable, classes: int, by: str) -> Tensor:
    """[n] int64: what each row is drawn among; by: `bank.sampled_by`.

    By `kind`: annotated rows, and all others; by `class`: the annotated rows of each class, and all others.
    """
    annotated = rows.source == ANNOTATED
    return (
        torch.where(annotated, 0, 1) if by == "kind" else torch.where(annotated, rows.label.long(), classes)
    )


def per_stratum(rows: Tensor, by_class: Tensor, by: str) -> Tensor:
    """[strata] int64: rows of each. rows: [1] int64, all; by_class: [K] int64, the annotated ones."""
    annotated = by_class.sum()[None]
    return torch.cat([annotated if by == "kind" else by_class, rows - annotated])


def draw_probabilities(rows: Tensor, sampled: int) -> Tensor:
    """[strata] float64: with which probability a row of each is drawn, so that about `sampled` are in all.

    rows: [strata] int64 to draw from, the last those that are not annotated. Half of the drawn are annotated
    where there are as many: they alone attract by annotation, and where labels are sparse a plain draw has
    hardly any. Of each stratum of them as many are drawn as of every other, or all.
    """
    numbers = rows.double()
    annotated, others = numbers[:-1], numbers[-1:]
    of_annotated = annotated.sum().minimum((sampled - others).clamp(min=sampled / 2))
    level = _level(annotated, of_annotated)
    wanted = torch.cat([annotated.minimum(level), sampled - of_annotated])
    return wanted / numbers.clamp(min=1)


def _level(numbers: Tensor, total: Tensor) -> Tensor:
    """[1] float64: t for which Σ min(numbers, t) is the total, which is no more than Σ numbers."""
    ascending = numbers.sort().values
    below = ascending.cumsum(0) - ascending
    above = torch.arange(len(numbers), 0, -1, device=numbers.device)
    # Every piece of the concave, piecewise linear Σ min(numbers, t) lies above it: the last to cross is its.
    return ((total - below) / above).amax(0, keepdim=True)


def draw_rows(store: Store, strata: Tensor, slots: Tensor, share: Tensor, seed: int, step: int) -> Tensor:
    """Those of the slots whose rows this step draws, each by its own hash.

    strata: of the slots ever written, [store.used] int64; share: probability of a row of each stratum.
    """
    chance = uniform(seed, step, store.rows.image[slots], store.rows.segment[slots])
    return slots[chance < share[strata[slots]]]


def row_weights(stratum: Tensor, sure: int, rows: Tensor) -> Tensor:
    """[n] float32: how many rows of the bank each candidate stands for.

    stratum: [n] int64 of the candidates, of which the first `sure` stand for themselves and the rest was
    drawn; rows: [strata] int64 of which they were drawn. A drawn row stands for its part of those of its
    stratum.
    """
    weight = torch.ones(len(stratum), device=stratum.device)
    drawn = stratum[sure:]
    part = rows / torch.bincount(drawn, minlength=len(rows))
    weight[sure:] = part.to(weight)[drawn]
    return weight
