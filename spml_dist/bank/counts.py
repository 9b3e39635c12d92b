"""How many rows attract and repel each segment, counted over the whole bank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.bank.rows import ANNOTATED
from spml_dist.bank.search.filters import Filterable, Queries, passing, query_groups


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


def sum_over_ranks(counts: RowCounts) -> RowCounts:
    """The sums of every rank's counts for the same queries; a collective."""
    ours = list(vars(counts).values())
    return RowCounts(*comm.sum_all(torch.cat(ours)).split([len(each) for each in ours]))


def _of_queries(by_group: Tensor, group: Tensor) -> Tensor:
    """[Q]: the number of each query's group, 0 for a query without one."""
    return torch.cat([by_group.new_zeros(1), by_group])[group + 1]
