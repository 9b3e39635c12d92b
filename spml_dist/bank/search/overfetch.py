"""Answers from an inverted file that cannot filter: it is asked for more, and the rows say who may answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spml_dist.bank.rows import ANNOTATED
from spml_dist.bank.search.exact import nearest
from spml_dist.bank.search.filters import BY_CLASS, Columns, Kind, Queries, groups, passing
from spml_dist.bank.search.index_cache import Cache
from spml_dist.bank.store import Store
from spml_dist.tensor_records import take

DEPTH = 1 << 10
"""entries fetched for a query"""

BEYOND = 8
"""answers wanted beyond k, because entries are ranked by half-precision copies"""


def overfetched(
    store: Store, cache: Cache, queries: Queries, kinds: Sequence[Kind], k: int, eligible: Tensor
) -> dict[Kind, Tensor]:
    """[Q, ≥ k] int64 slots proposed for each kind, -1 = none; one search serves all kinds.

    eligible: [store.used] bool. Queries of which too few entries may answer are compared with all rows.
    """
    if not kinds:
        return {}
    vectors = queries.vector.float().cpu().numpy()
    slots = torch.from_numpy(cache.fetched(vectors, kinds, DEPTH)).to(eligible.device)
    at = slots.clamp(min=0)
    answers = (slots >= 0) & eligible[at] & (store.rows.image[at] != queries.image[:, None])
    facts = Columns(*(getattr(store.rows, name)[at] for name in Columns._fields))
    return {kind: _checked(store, queries, kind, k, eligible, slots, answers, facts) for kind in kinds}


def _checked(
    store: Store,
    queries: Queries,
    kind: Kind,
    k: int,
    eligible: Tensor,
    slots: Tensor,
    answers: Tensor,
    facts: Columns,
) -> Tensor:
    """slots, answers, facts: [Q, depth], what was fetched and whether it may answer if its kind allows."""
    everyone = torch.arange(len(queries), device=slots.device)
    passes = answers & passing(kind, queries, everyone, facts)
    nearest_first = torch.argsort(~passes, dim=1, stable=True)[:, : k + BEYOND]
    proposed = torch.full((len(slots), k + BEYOND), -1, device=slots.device)
    proposed[:, : nearest_first.shape[1]] = torch.where(passes, slots, -1).gather(1, nearest_first)
    asks = groups(kind, queries)[0] >= 0
    proposed[~asks] = -1
    short = (asks & (passes.sum(dim=1) < k + BEYOND)).nonzero()[:, 0]
    if len(short):
        some = take(queries, short)
        if kind in BY_CLASS:
            eligible = eligible & (store.rows.source[: store.used] == ANNOTATED)
        proposed[short] = -1
        proposed[short, :k] = nearest(store, some, [kind], k, eligible.nonzero()[:, 0])[kind].slot
    return proposed
