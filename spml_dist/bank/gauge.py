"""Whether the inverted file still finds what exact search finds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spml_dist.bank.cache import Cache
from spml_dist.bank.filters import Kind, Queries
from spml_dist.bank.lookup import lookup
from spml_dist.bank.nearest import Found
from spml_dist.bank.store import Store

SAMPLE = 32
"""queries that recall is measured on"""


def gauge(
    store: Store,
    cache: Cache,
    queries: Queries,
    kinds: Sequence[Kind],
    k: int,
    eligible: Tensor,
    least: float,
) -> dict[Kind, tuple[int, int]]:
    """Rows found and rows to be found for a fixed sample of the queries, by kind; recall@k is their ratio.

    A kind whose recall is below `least` is searched more widely until it is not.
    """
    every = max(1, len(queries) // SAMPLE)
    sample = Queries(*(value[::every] for value in vars(queries).values()))
    exact = lookup(store, None, sample, kinds, k, eligible)
    seen = {}
    for kind in kinds:
        while True:
            found = lookup(store, cache, sample, [kind], k, eligible)[kind]
            seen[kind] = _hits(found, exact[kind]), int((exact[kind].slot >= 0).sum())
            if seen[kind][0] >= least * seen[kind][1] or cache.exhausted(kind):
                break
            cache.widen(kind)
    cache.gauged = True
    return seen


def _hits(found: Found, exact: Found) -> int:
    met = (found.slot[:, :, None] == exact.slot[:, None, :]) & (exact.slot >= 0)[:, None, :]
    return int(torch.count_nonzero(met))
