"""One worker's answers: from the inverted file where there is one, exactly from what it does not cover."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from spml_dist.bank.rows import ANNOTATED
from spml_dist.bank.search.exact import SLACK, SlotNeighbours, among, nearest, ranked
from spml_dist.bank.search.filters import BY_CLASS, Kind, Queries, passing, query_groups
from spml_dist.bank.search.index_cache import IndexCache
from spml_dist.bank.store import Store
from spml_dist.tensor_records import take

FEW = 1 << 13
"""passing rows up to which comparing them all is faster than probing lists"""

AT_ONCE = 1 << 15
"""rows whose similarities are held all at once: with 600 queries they take 80 MB"""

BEYOND = 8
"""entries wanted beyond k, because they are ranked by half-precision copies"""

Lists = Callable[[], dict[Kind, tuple[np.ndarray, np.ndarray]]]
"""the lists to search for each kind, computed when one is first needed"""


def lookup(
    store: Store, cache: IndexCache | None, queries: Queries, kinds: Sequence[Kind], k: int, eligible: Tensor
) -> dict[Kind, SlotNeighbours]:
    """The k nearest rows of a store for each query and kind; exactly without a cache.

    eligible: [store.used] bool, the rows that may answer anybody.
    """
    if not kinds:
        return {}
    annotated = eligible & (store.rows.source[: store.used] == ANNOTATED)
    if cache is None:
        # Only annotated rows answer by class: where all segments of a step vote, comparing the others with
        # them would take longer than all else.
        ways = {way: [kind for kind in kinds if (kind in BY_CLASS) == way] for way in (False, True)}
        answers = nearest(store, queries, ways[False], k, eligible.nonzero()[:, 0]) if ways[False] else {}
        answers |= nearest(store, queries, ways[True], k, annotated.nonzero()[:, 0]) if ways[True] else {}
        return {kind: answers[kind] for kind in kinds}
    current = torch.from_numpy(cache.current(store.used)).to(eligible.device)
    share = annotated.sum().item() / max(1, len(store))  # not of the slots, which a restore makes fewer
    # Three ways, for each kind the cheapest: the lists next to a query; all rows, where recall asks for so
    # many lists that comparing them all is no slower; or all annotated rows, for kinds that only they answer.
    by_class = [kind for kind in kinds if kind in BY_CLASS and cache.prefers_exact(kind, share)]
    compared = [kind for kind in kinds if kind not in by_class and cache.prefers_exact(kind)]
    probed = [kind for kind in kinds if kind not in by_class + compared]
    answers = nearest(store, queries, compared, k, eligible.nonzero()[:, 0])
    answers |= nearest(store, queries, by_class, k, annotated.nonzero()[:, 0])
    # Rows that came after the lists were fed: exactly, so that a row is found from the step after its own.
    newer = nearest(store, queries, probed, k, (eligible & ~current).nonzero()[:, 0])
    lists = functools.cache(lambda: cache.probed(_on_host(queries.vector), probed))
    for kind in probed:
        older = _proposed(store, cache, queries, kind, k, eligible & current, lists)
        answers[kind] = ranked(store, queries, torch.cat([newer[kind].slot, older], dim=1), k)
    return {kind: answers[kind] for kind in kinds}  # ranks exchange answers in this order


def _proposed(
    store: Store, cache: IndexCache, queries: Queries, kind: Kind, k: int, eligible: Tensor, lists: Lists
) -> Tensor:
    """[Q, ≥ k] int64 slots proposed by the inverted file, -1 = none; few passing rows are compared all."""
    own = _own(store, queries, eligible)
    # More than k: copies of half precision misplace some, and the query's own image is struck out afterwards.
    depth = k + max(SLACK, BEYOND + own.shape[1])
    vectors = _on_host(queries.vector)
    proposed = np.full((len(queries), depth), -1, np.int64)
    for members, allowed in _groups(store, queries, kind, eligible):
        passed = np.count_nonzero(allowed)
        if passed <= FEW or cache.prefers_exact(kind, passed / max(1, len(store))):
            _compare(proposed, store, queries, members, k, allowed)
            continue
        probed = lists()[kind][0][members], lists()[kind][1][members]
        entries = cache.inverted.search(vectors[members], depth, probed, allowed[: len(cache.inverted)])
        if own.shape[1]:
            entries[(entries[:, :, None] == own[members][:, None, :]).any(axis=2)] = -1
        proposed[members] = entries
        # The lists next to a query may hold too few rows that pass, and so may a fetch that cannot filter.
        of_own_image = np.count_nonzero(allowed[own[members].clip(0)] & (own[members] >= 0), axis=1)
        short = np.count_nonzero(entries >= 0, axis=1) < np.minimum(k, passed - of_own_image)
        if short.any():
            _compare(proposed, store, queries, members[short], k, allowed)
    return torch.from_numpy(proposed).to(eligible.device)


def _groups(
    store: Store, queries: Queries, kind: Kind, eligible: Tensor
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Queries of equal rights (indices), and which rows may answer them, [store.used] bool."""
    group, first = query_groups(kind, queries)
    rows = store.written_rows()
    for number in range(len(first)):
        allowed = eligible
        if kind != "any":
            allowed = passing(kind, queries, first[number : number + 1], rows)[0] & eligible
        yield (group == number).nonzero()[:, 0].cpu().numpy(), allowed.cpu().numpy()


def _compare(
    proposed: np.ndarray, store: Store, queries: Queries, members: np.ndarray, k: int, allowed: np.ndarray
) -> None:
    """Propose to some queries the nearest of all rows that are allowed."""
    device = queries.image.device
    some = take(queries, torch.from_numpy(members).to(device))
    slots = torch.from_numpy(np.flatnonzero(allowed)).to(device)
    if len(slots) > AT_ONCE:
        compared = nearest(store, some, ["any"], k, slots)["any"].slot
    else:
        compared = among(store, some, k, slots)
    proposed[members] = -1
    proposed[members, : compared.shape[1]] = compared.cpu().numpy()


def _own(store: Store, queries: Queries, eligible: Tensor) -> np.ndarray:
    """[Q, m] int64: eligible slots of each query's own image, padded with -2."""
    images, of = torch.unique(queries.image, return_inverse=True)
    may_answer = eligible.cpu().numpy()
    slots = [store.slots_of(image) for image in images.tolist()]
    slots = [some[may_answer[some]] for some in slots]
    own = np.full((len(images), max(map(len, slots), default=0)), -2, np.int64)
    for row, some in zip(own, slots, strict=True):
        row[: len(some)] = some
    return own[of.cpu().numpy()]


def _on_host(vectors: Tensor) -> np.ndarray:
    return vectors.float().cpu().numpy()
