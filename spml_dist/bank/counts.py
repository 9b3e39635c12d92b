"""How many rows attract and repel each segment, counted over the whole bank.

`count` reads the rows it is given; `RunningCounts` keeps a store's numbers up to date as rows come and go, so
that a step reads none of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.bank.rows import ANNOTATED
from spml_dist.bank.search.filters import Filterable, FilterColumns, Queries, passing, query_groups


@dataclass(frozen=True)
class RowCounts:
    """Numbers of rows; K classes, Q queries."""

    rows: Tensor
    """[1] int64"""
    by_class: Tensor
    """[K] int64: annotated rows"""
    by_propagated: Tensor
    """[K] int64: rows with a class, annotated or propagated"""
    sharing: Tensor
    """[Q] int64: rows that share a tag with each query; 0 where its tags are unknown"""
    apart: Tensor
    """[Q] int64: rows known to share none; 0 where its tags are unknown"""


class RunningCounts:
    """The numbers of some rows by class and by set of tags, after every row that came or went.

    A set of tags that was met stays known when its last row goes: a data set has only so many.
    """

    def __init__(self, classes: int, words: int, device: torch.device | None = None):
        """words: of a tag bitset."""
        self._rows = torch.zeros(1, dtype=torch.int64, device=device)
        self._by_class = torch.zeros(classes, dtype=torch.int64, device=device)
        self._by_propagated = torch.zeros(classes, dtype=torch.int64, device=device)
        self._tags_known = torch.zeros(1, dtype=torch.int64, device=device)
        self._tag_sets = torch.zeros(0, words, dtype=torch.int64, device=device)
        self._by_tag_set = torch.zeros(0, dtype=torch.int64, device=device)

    def came(self, rows: Filterable) -> None:
        """Count [n] rows in."""
        self._change(rows, 1)

    def went(self, rows: Filterable) -> None:
        """Count [n] rows out that were counted in."""
        self._change(rows, -1)

    def of(self, queries: Queries) -> RowCounts:
        """`count` of all rows there are."""
        group, members = query_groups("shares_tag", queries)
        nothing = torch.zeros_like(self._by_tag_set)
        sets = FilterColumns(nothing.short(), nothing.byte(), self._tag_sets, nothing.bool())
        shared = passing("shares_tag", queries, members, sets)
        sharing = (shared * self._by_tag_set).sum(dim=1)
        apart = self._tags_known - sharing
        by_query = (_of_queries(each, group) for each in (sharing, apart))
        return RowCounts(self._rows.clone(), self._by_class.clone(), self._by_propagated.clone(), *by_query)

    def _change(self, rows: Filterable, sign: int) -> None:
        annotated, known, classes = rows.source == ANNOTATED, rows.label >= 0, len(self._by_class)
        self._rows += sign * len(rows.label)
        self._tags_known += sign * rows.tags_known.sum()
        for numbers, which in ((self._by_class, known & annotated), (self._by_propagated, known)):
            numbers += sign * torch.bincount(rows.label[which].long(), minlength=classes)
        # The known sets come first in a list of all: the place of a row's set among those without repetition.
        sets, place = torch.unique(torch.cat([self._tag_sets, rows.tags]), dim=0, return_inverse=True)
        old, new = place[: len(self._tag_sets)], place[len(self._tag_sets) :]
        numbers = torch.zeros(len(sets), dtype=torch.int64, device=place.device)
        numbers[old] = self._by_tag_set
        self._tag_sets = sets
        self._by_tag_set = numbers + sign * torch.bincount(new, minlength=len(sets))


def count(rows: Filterable, eligible: Tensor, queries: Queries, classes: int) -> RowCounts:
    """Count the eligible among some rows, [n] bool."""
    group, members = query_groups("shares_tag", queries)
    known = eligible & (rows.label >= 0)
    by_class, by_propagated = (
        torch.bincount(rows.label[which].long(), minlength=classes)
        for which in (known & (rows.source == ANNOTATED), known)
    )
    shared = (
        passing("shares_tag", queries, members[g : g + 1], rows)[0] & eligible for g in range(len(members))
    )
    sharing = torch.stack([torch.count_nonzero(each) for each in shared] or [members.sum()])[: len(members)]
    apart = (eligible & rows.tags_known).sum() - sharing  # who shares a tag has known ones
    sharing, apart = (_of_queries(each, group) for each in (sharing, apart))
    return RowCounts(eligible.sum()[None], by_class, by_propagated, sharing, apart)


def difference(counts: RowCounts, part: RowCounts) -> RowCounts:
    """The counts without those of a part of the rows, for the same queries."""
    pairs = zip(vars(counts).values(), vars(part).values(), strict=True)
    return RowCounts(*(whole - some for whole, some in pairs))


def sum_over_ranks(counts: RowCounts) -> RowCounts:
    """The sums of every rank's counts for the same queries; a collective."""
    ours = list(vars(counts).values())
    return RowCounts(*comm.sum_all(torch.cat(ours)).split([len(each) for each in ours]))


def _of_queries(by_group: Tensor, group: Tensor) -> Tensor:
    """[Q]: the number of each query's group, 0 for a query without one."""
    return torch.cat([by_group.new_zeros(1), by_group])[group + 1]
