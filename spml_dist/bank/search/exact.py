"""The nearest of some rows: exact, tiled, on any device; and the one way in which answers are merged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spml_dist.bank.search.filters import Filterable, Kind, Queries, filter_columns, passing, query_groups
from spml_dist.bank.store import Store
from spml_dist.tensor_records import concatenate, take

TILE = 1 << 13
"""rows compared at a time: with 600 queries their similarities take 20 MB"""

ON_GPU = 1 << 25
"""similarities of a tile there, 134 MB: smaller ones would wait for the host that starts their operations"""

QUERIES = 1 << 12
"""queries answered at a time: a tile takes 134 MB at most, however many segments vote"""

SLACK = 16
"""answers kept beyond k until their similarities are computed one by one, since those of a matrix product
depend on its shape in the last bits"""

PARTS = 16
"""entries of which the largest is looked at first"""

SETTLED = 32
"""queries answered at a time among all rows that are about as similar as their k-th"""


@dataclass(frozen=True)
class SlotNeighbours:
    """Rows of one store, best first."""

    similarity: Tensor
    """[Q, k]; -inf where there are fewer"""
    slot: Tensor
    """[Q, k] int64; -1 where there are fewer"""


def nearest(
    store: Store, queries: Queries, kinds: Sequence[Kind], k: int, slots: Tensor
) -> dict[Kind, SlotNeighbours]:
    """The k nearest of the rows in `slots` for every kind, exactly; equal ones by (image, segment).

    One product with the rows serves all kinds. Rows of a query's own image never answer.
    """
    if not len(slots):
        return {kind: _nothing(queries, k) for kind in kinds}
    if len(queries) > QUERIES:
        blocks = torch.arange(len(queries), device=queries.image.device).split(QUERIES)
        parts = [nearest(store, _these(queries, block), kinds, k, slots) for block in blocks]
        return {kind: concatenate([part[kind] for part in parts]) for kind in kinds}
    best = {kind: _nothing(queries, k + SLACK) for kind in kinds}
    # More than k are kept while tiles go by: which of nearly equal rows a product puts first depends on its
    # shape in the last bits, and answers must not depend on how the rows are spread.
    for kind, similarity, part in _tiles(store, queries, kinds, slots):
        best[kind] = _better(best[kind], similarity, part)
    result = {}
    for kind, answers in best.items():
        result[kind] = ranked(store, queries, answers.slot, k)
        # Rarely even those do not reach: as many rows are as near as the k-th. Such queries look again.
        undecided = _undecided(answers, k, queries.vector.shape[1])
        for start in range(0, len(undecided), SETTLED):
            _settle(store, queries, kind, k, slots, result[kind], undecided[start : start + SETTLED])
    return result


def among(store: Store, queries: Queries, k: int, slots: Tensor) -> Tensor:
    """[Q, ≤ k + SLACK] int64: rows among which the k nearest of those in `slots` are, whatever the kind; -1 =
    none. For few rows: their similarities are computed at once."""
    vectors = _full(queries)
    similarity = vectors @ store.rows.vector.index_select(0, slots).to(vectors.dtype).T
    own = torch.isin(store.rows.image[slots], queries.image).nonzero()[:, 0]
    if len(own):
        similarity[:, own] += _barred(
            queries.image[:, None] != store.rows.image[slots[own]], similarity.dtype
        )
    values, index = _top(similarity, min(k + SLACK, len(slots)))
    proposed = torch.where(values == -torch.inf, -1, slots[index])
    if len(slots) <= k + SLACK:  # every row is among the answers
        return proposed
    undecided = _undecided(SlotNeighbours(values, proposed), k, vectors.shape[1])
    if len(undecided):
        settled = nearest(store, _these(queries, undecided), ["any"], k, slots)["any"].slot
        proposed[undecided] = -1
        proposed[undecided, :k] = settled
    return proposed


def ranked(store: Store, queries: Queries, slot: Tensor, k: int) -> SlotNeighbours:
    """The k best of the proposed rows, each by the similarity of its own product.

    slot: [Q, m] int64, any order, -1 = none; no row twice for a query.
    """
    if not slot.shape[1]:
        return _nothing(queries, k)
    vectors = _full(queries)
    rows = store.rows.vector[slot.clamp(min=0)].to(vectors.dtype)
    similarity = (rows * vectors[:, None]).sum(dim=2).masked_fill_(slot < 0, -torch.inf)
    image, segment = (value[slot.clamp(min=0)] for value in (store.rows.image, store.rows.segment))
    order = in_order(similarity, image, segment)[:, :k]
    answers = _nothing(queries, k)
    answers.similarity[:, : order.shape[1]] = similarity.gather(1, order)
    answers.slot[:, : order.shape[1]] = slot.gather(1, order)
    return answers


def in_order(similarity: Tensor, image: Tensor, segment: Tensor) -> Tensor:
    """[Q, m] int64: columns by similarity, best first, then by image and segment. How answers are merged."""
    best, order = torch.sort(similarity, dim=1, descending=True, stable=True)
    # Rarely are two alike; only then does it take the sorts by image and segment, the last key first.
    if not ((best[:, 1:] == best[:, :-1]) & (best[:, 1:] > -torch.inf)).any():
        return order
    order = torch.argsort(segment, dim=1, stable=True)
    order = order.gather(1, torch.argsort(image.gather(1, order), dim=1, stable=True))
    return order.gather(1, torch.argsort(similarity.gather(1, order), dim=1, descending=True, stable=True))


def _tiles(
    store: Store, queries: Queries, kinds: Sequence[Kind], slots: Tensor
) -> Iterator[tuple[Kind, Tensor, Tensor]]:
    """By tile and kind: similarities, [Q, t], -inf where a row may not answer; and the tile's slots, [t]."""
    vectors, by_kind = _full(queries), {kind: query_groups(kind, queries) for kind in kinds}
    by_kind = {kind: those for kind, those in by_kind.items() if len(those[1])}
    for part in slots.split(_rows_of_tile(vectors)) if by_kind else ():
        image = store.rows.image[part]
        similarity = vectors @ store.rows.vector.index_select(0, part).to(vectors.dtype).T
        own = torch.isin(image, queries.image).nonzero()[:, 0]
        similarity[:, own] += _barred(queries.image[:, None] != image[own], similarity.dtype)
        columns = filter_columns(store.rows, part)
        for kind, (group, members) in by_kind.items():
            yield kind, _allowed(similarity, kind, queries, group, members, columns), part


def _rows_of_tile(vectors: Tensor) -> int:
    return max(TILE, ON_GPU // max(1, len(vectors))) if vectors.is_cuda else TILE


def _allowed(
    similarity: Tensor, kind: Kind, queries: Queries, group: Tensor, members: Tensor, columns: Filterable
) -> Tensor:
    if kind == "any":
        return similarity
    # Queries of equal rights share a mask: filters are compared with the rows once a group, not once a query.
    bars = _barred(passing(kind, queries, members, columns), similarity.dtype)
    bars = bars.index_select(0, group.clamp(min=0))
    bars[group < 0] = -torch.inf
    return bars.add_(similarity)


def _barred(passes: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a row passes, -inf elsewhere: adding is three times as fast as filling by mask."""
    return torch.zeros_like(passes, dtype=dtype).masked_fill_(~passes, -torch.inf)


def _better(answers: SlotNeighbours, similarity: Tensor, slots: Tensor) -> SlotNeighbours:
    """The best of the answers so far and of a tile."""
    kept = answers.slot.shape[1]
    values, index = _top(similarity, min(kept, len(slots)))
    slot = torch.where(values == -torch.inf, -1, slots[index])
    values, slot = torch.cat([answers.similarity, values], 1), torch.cat([answers.slot, slot], 1)
    values, index = values.topk(kept, dim=1)
    return SlotNeighbours(values, slot.gather(1, index))


def _top(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `topk`. On a CPU twice as fast: the k largest are in the k of `PARTS` strided parts whose largest
    entries are the largest, but for entries as large as the k-th."""
    queries, rows = similarity.shape
    if similarity.device.type != "cpu" or rows < 4 * PARTS * max(1, k):
        return similarity.topk(k, dim=1)
    whole = rows - rows % PARTS
    largest = similarity[:, :whole].view(queries, PARTS, -1).amax(dim=1)
    parts = largest.topk(k, dim=1, sorted=False).indices
    columns = (parts[:, None] + torch.arange(0, whole, whole // PARTS)[None, :, None]).flatten(1)
    columns = torch.cat([columns, torch.arange(whole, rows).expand(queries, -1)], dim=1)
    values, index = similarity.gather(1, columns).topk(k, dim=1)
    return values, columns.gather(1, index)


def _nothing(queries: Queries, k: int) -> SlotNeighbours:
    vectors = _full(queries)
    similarity = vectors.new_full((len(vectors), k), -torch.inf)
    return SlotNeighbours(similarity, torch.full_like(similarity, -1, dtype=torch.int64))


def _full(queries: Queries) -> Tensor:
    return queries.vector.to(torch.promote_types(queries.vector.dtype, torch.float32))


def _rounding(dtype: torch.dtype, dim: int) -> float:
    """How far two ways to add up a product of unit vectors may be apart."""
    return torch.finfo(dtype).eps * dim**0.5


def _undecided(answers: SlotNeighbours, k: int, dim: int) -> Tensor:
    """[q] int64: queries for which a row may have been left out that is as similar as the k-th."""
    kept, last = answers.similarity[:, k - 1], answers.similarity[:, -1]
    near = kept - last <= _rounding(last.dtype, dim)
    return (near & (last > -torch.inf)).nonzero()[:, 0]


def _settle(
    store: Store, queries: Queries, kind: Kind, k: int, slots: Tensor, answers: SlotNeighbours, some: Tensor
) -> None:
    """Answer some queries again among all rows that are about as similar as their k-th or more."""
    some_queries = _these(queries, some)
    least = answers.similarity[some, k - 1] - _rounding(answers.similarity.dtype, queries.vector.shape[1])
    close_slots: list[list[Tensor]] = [[] for _ in some]
    for _, similarity, part in _tiles(store, some_queries, [kind], slots):
        for slot, close in zip(close_slots, similarity >= least[:, None], strict=True):
            slot.append(part[close])
    for query, slot in zip(some.split(1), close_slots, strict=True):
        again = ranked(store, _these(queries, query), torch.cat(slot)[None], k)
        answers.similarity[query], answers.slot[query] = again.similarity, again.slot


def _these(queries: Queries, which: Tensor) -> Queries:
    return take(queries, which)
