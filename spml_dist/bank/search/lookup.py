"""One worker's answers: from the inverted file where there is one, exactly from what it does not cover."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from spml_dist.bank.rows import ANNOTATED
from spml_dist.bank.search.exact import SLACK, Found, among, nearest, ranked
from spml_dist.bank.search.faiss_index import Appended
from spml_dist.bank.search.filters import BY_CLASS, Kind, Queries, groups, passing
from spml_dist.bank.search.index_cache import Cache
from spml_dist.bank.search.overfetch import BEYOND, overfetched
from spml_dist.bank.store import Store
from spml_dist.tensor_records import take

FEW = 1 << 13
"""passing rows up to which comparing them all is faster than probing lists"""

AT_ONCE = 1 << 15
"""rows whose similarities are held all at once: with 600 queries they take 80 MB"""


def lookup(
    store: Store, cache: Cache | None, queries: Queries, kinds: Sequence[Kind], k: int, eligible: Tensor
) -> dict[Kind, Found]:
    """The k nearest rows of a store for each query and kind; exactly without a cache.

    eligible: [store.used] bool, the rows that may answer anybody.
    """
    if not kinds:
        return {}
    if cache is None:
        return nearest(store, queries, kinds, k, eligible.nonzero()[:, 0])
    current = torch.from_numpy(cache.current(store.used)).to(eligible.device)
    annotated = eligible & (store.rows.source[: store.used] == ANNOTATED)
    share = annotated.sum().item() / max(1, len(store))  # not of the slots, which a restore makes fewer
    by_class = [kind for kind in kinds if kind in BY_CLASS and cache.exhausted(kind, share)]
    compared = [kind for kind in kinds if kind not in by_class and cache.exhausted(kind)]
    probed = [kind for kind in kinds if kind not in by_class + compared]
    found = nearest(store, queries, compared, k, eligible.nonzero()[:, 0])
    found |= nearest(store, queries, by_class, k, annotated.nonzero()[:, 0])
    newer = nearest(store, queries, probed, k, (eligible & ~current).nonzero()[:, 0])
    proposing = overfetched if isinstance(cache.inverted, Appended) else _probed
    older = proposing(store, cache, queries, probed, k, eligible & current)
    for kind in probed:
        found[kind] = ranked(store, queries, torch.cat([newer[kind].slot, older[kind]], dim=1), k)
    return {kind: found[kind] for kind in kinds}  # ranks exchange answers in this order


def _probed(
    store: Store, cache: Cache, queries: Queries, kinds: Sequence[Kind], k: int, eligible: Tensor
) -> dict[Kind, Tensor]:
    """[Q, ≥ k] int64 slots proposed for each kind, -1 = none."""
    lists = functools.cache(lambda: cache.probed(queries.vector.float().numpy(), kinds))
    return {kind: _probe(store, cache, queries, kind, k, eligible, lists) for kind in kinds}


def _probe(
    store: Store, cache: Cache, queries: Queries, kind: Kind, k: int, eligible: Tensor, lists: Callable
) -> Tensor:
    """[Q, ≥ k] int64 slots proposed by the inverted file, -1 = none; few passing rows are compared all.

    lists: tells which ones to search for each kind, where any are.
    """
    own = _own(store, queries, eligible)
    depth = k + max(SLACK, BEYOND + own.shape[1])
    vectors = queries.vector.float().numpy()
    found = np.full((len(queries), depth), -1, np.int64)
    for members, allowed in _groups(store, queries, kind, eligible):
        passed = np.count_nonzero(allowed)
        if passed <= FEW or cache.exhausted(kind, passed / max(1, len(store))):
            _compare(found, store, queries, members, k, allowed)
            continue
        entries = allowed[: len(cache.inverted)]
        probed = tuple(part[members] for part in lists()[kind])
        some = cache.inverted.search(vectors[members], depth, probed, entries)
        if own.shape[1]:
            some[(some[:, :, None] == own[members][:, None, :]).any(axis=2)] = -1
        found[members] = some
        short = np.count_nonzero(some >= 0, axis=1) < min(k, passed - own.shape[1])
        if short.any():
            _compare(found, store, queries, members[short], k, allowed)
    return torch.from_numpy(found)


def _groups(
    store: Store, queries: Queries, kind: Kind, eligible: Tensor
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Queries of equal rights (indices), and which rows may answer them, [store.used] bool."""
    group, first = groups(kind, queries)
    rows = take(store.rows, slice(0, store.used))
    for number in range(len(first)):
        allowed = eligible
        if kind != "any":
            allowed = passing(kind, queries, first[number : number + 1], rows)[0] & eligible
        yield (group == number).nonzero()[:, 0].numpy(), allowed.numpy()


def _compare(
    found: np.ndarray, store: Store, queries: Queries, members: np.ndarray, k: int, allowed: np.ndarray
) -> None:
    """Propose to some queries the nearest of all rows that are allowed."""
    some = take(queries, torch.from_numpy(members))
    slots = torch.from_numpy(np.flatnonzero(allowed))
    if len(slots) > AT_ONCE:
        proposed = nearest(store, some, ["any"], k, slots)["any"].slot.numpy()
    else:
        proposed = among(store, some, k, slots).numpy()
    found[members] = -1
    found[members, : proposed.shape[1]] = proposed


def _own(store: Store, queries: Queries, eligible: Tensor) -> np.ndarray:
    """[Q, m] int64: eligible slots of each query's own image, padded with -2."""
    images, of = torch.unique(queries.image, return_inverse=True)
    slots = [store.slots_of(image) for image in images.tolist()]
    slots = [some[eligible.numpy()[some]] for some in slots]
    own = np.full((len(images), max(map(len, slots), default=0)), -2, np.int64)
    for row, some in zip(own, slots, strict=True):
        row[: len(some)] = some
    return own[of.numpy()]
