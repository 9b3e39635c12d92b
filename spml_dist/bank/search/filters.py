"""Which rows may answer which queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from spml_dist.bank.rows import ANNOTATED, bitset
from spml_dist.records import Candidates

Kind = Literal["any", "shares_tag", "shares_none", "labelled", "same_class", "other_class"]
"""any row; rows whose image shares a tag, or is known to share none, with the query's image; annotated rows;
those of the query's class; those of another"""

BY_CLASS = ("labelled", "same_class", "other_class")
"""kinds that only annotated rows answer"""


@dataclass(frozen=True)
class Queries:
    """Segments whose nearest rows are looked up."""

    vector: Tensor
    """[Q, C] unit vectors"""
    image: Tensor
    """[Q] int64: rows of the query's own image never answer"""
    label: Tensor
    """[Q] int16: annotated class, -1 = none: no row is looked up for the kinds by class"""
    tags: Tensor
    """[Q, words] int64 bitset"""
    tags_known: Tensor
    """[Q] bool: where not, no row is looked up for the kinds by tags"""

    @property
    def source(self) -> Tensor:
        """[Q] uint8: annotated or nothing, which makes queries `Filterable`"""
        return torch.where(self.label >= 0, ANNOTATED, 0).to(torch.uint8)

    def __len__(self) -> int:
        return len(self.image)


def segment_queries(segments: Candidates, classes: int, ignore_classes: Sequence[int]) -> Queries:
    """A step's segments as queries, in their order.

    ignore_classes: those that do not count as shared tags.
    """
    counted = segments.tags & segments.tags_known[:, None]
    counted[:, list(ignore_classes)] = False
    label = torch.where(segments.semantic < classes, segments.semantic, -1).short()
    return Queries(segments.prototype.detach(), segments.image, label, bitset(counted), segments.tags_known)


class Filterable(Protocol):
    """What filters read of rows; BankRows have it, and so have queries."""

    @property
    def label(self) -> Tensor:
        """[n] int16"""

    @property
    def source(self) -> Tensor:
        """[n] uint8"""

    @property
    def tags(self) -> Tensor:
        """[n, words] int64 bitset, zero where unknown"""

    @property
    def tags_known(self) -> Tensor:
        """[n] bool"""


class FilterColumns(NamedTuple):
    """What filters read of some rows, copied."""

    label: Tensor
    source: Tensor
    tags: Tensor
    tags_known: Tensor


def filter_columns(rows: Filterable, index: Tensor) -> FilterColumns:
    """What filters read of the rows at an index, [n] int64."""
    return FilterColumns(*(getattr(rows, name).index_select(0, index) for name in FilterColumns._fields))


def query_groups(kind: Kind, queries: Queries) -> tuple[Tensor, Tensor]:
    """Queries with equal rights: group of each, [Q] int64 (-1 = no lookup), and a member of each, [G]."""
    match kind:
        case "any" | "labelled":
            takes_part, key = torch.ones_like(queries.tags_known), torch.zeros_like(queries.tags[:, :1])
        case "shares_tag" | "shares_none":
            takes_part, key = queries.tags_known, queries.tags
        case "same_class" | "other_class":
            takes_part, key = queries.label >= 0, queries.label[:, None].long()
    group = torch.full_like(queries.image, -1)
    members = torch.zeros(0, dtype=torch.int64, device=group.device)
    if takes_part.any():
        keys, of = torch.unique(key[takes_part], dim=0, return_inverse=True)
        group[takes_part] = of
        members = members.new_full((len(keys),), len(queries))
        members.scatter_reduce_(0, of, takes_part.nonzero()[:, 0], "amin")
    return group, members


def passing(kind: Kind, queries: Queries, members: Tensor, rows: Filterable) -> Tensor:
    """[G, n] bool: which of the rows pass for each group, whatever their image.

    rows: n for all groups, or [G, n] of them: n for each.
    """
    match kind:
        case "any":
            return torch.ones_like(rows.label, dtype=torch.bool).expand(len(members), -1)
        case "labelled":
            return (rows.source == ANNOTATED).expand(len(members), -1)
        case "shares_tag":
            return _share(queries.tags[members], rows.tags)
        case "shares_none":
            return ~_share(queries.tags[members], rows.tags) & rows.tags_known
        case "same_class":
            own = queries.label[members, None]
            return (rows.label == own) & (rows.source == ANNOTATED)
        case "other_class":
            own = queries.label[members, None]
            return (rows.label != own) & (rows.source == ANNOTATED)


def _share(ours: Tensor, theirs: Tensor) -> Tensor:
    """[G, n] bool; words one after another, since one is enough for 63 classes."""
    shared = ours[:, None, 0] & theirs[..., 0] != 0
    for word in range(1, ours.shape[1]):
        shared |= ours[:, None, word] & theirs[..., word] != 0
    return shared
