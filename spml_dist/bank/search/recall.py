"""Whether the inverted file still finds what exact search finds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spml_dist.bank.search.exact import SlotNeighbours
from spml_dist.bank.search.filters import Kind, Queries, query_groups
from spml_dist.bank.search.index_cache import IndexCache
from spml_dist.bank.search.lookup import lookup
from spml_dist.bank.store import Store
from spml_dist.tensor_records import take

SAMPLE = 64
"""queries that recall is measured on"""


def measure_recall(
    store: Store,
    cache: IndexCache,
    queries: Queries,
    kinds: Sequence[Kind],
    k: int,
    eligible: Tensor,
    least: float,
) -> dict[Kind, tuple[int, int]]:
    """Rows found and rows to be found, for a fixed sample of the queries, by kind; recall@k is their ratio.

    A kind whose recall is below `least` is searched more widely until it is not.
    """
    hits: dict[Kind, tuple[int, int]] = {}
    for kind in kinds:
        sample = _sample(kind, queries)
        exact = lookup(store, None, sample, [kind], k, eligible)[kind]
        while True:
            answers = lookup(store, cache, sample, [kind], k, eligible)[kind]
            hits[kind] = _hits(answers, exact), int((exact.slot >= 0).sum())
            if hits[kind][0] >= least * hits[kind][1] or cache.prefers_exact(kind):
                break
            cache.widen(kind)
    cache.recall_measured |= any(whole for _, whole in hits.values())
    return hits


def _sample(kind: Kind, queries: Queries) -> Queries:
    """Some of those that look anything up, evenly spread."""
    taking_part = (query_groups(kind, queries)[0] >= 0).nonzero()[:, 0]
    return take(queries, taking_part[:: max(1, len(taking_part) // SAMPLE)])


def _hits(answers: SlotNeighbours, exact: SlotNeighbours) -> int:
    """Rows found that are no less similar than the last of the exact ones: of equal rows any will do."""
    last = exact.similarity.masked_fill(exact.slot < 0, torch.inf).amin(dim=1, keepdim=True)
    return int(torch.count_nonzero((answers.slot >= 0) & (answers.similarity >= last)))
