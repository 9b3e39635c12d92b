"""Answers of any number of stores, merged, against one brute-force search over all rows."""

from __future__ import annotations

from contextlib import contextmanager
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.bank.partitions import owned, owner_of, partition_of
from spml_dist.bank.search import faiss_index as index_module
from spml_dist.bank.search import index_cache as cache_module
from spml_dist.bank.search import lookup as module
from spml_dist.bank.search.exact import in_order
from spml_dist.bank.search.faiss_index import GpuInvertedFile
from spml_dist.bank.search.filters import Kind, Queries
from spml_dist.bank.search.index_cache import IndexCache
from spml_dist.bank.search.lookup import lookup
from spml_dist.bank.store import Store
from spml_dist.records import BankRows
from spml_dist.tensor_records import concatenate, take
from tests.bank.builders import CLASSES, DIM, brute_force, queries_of, rows_of, shuffled

KINDS = get_args(Kind)
SHARDS = 5
KEYS = [f"image {i}" for i in range(12)]


def stores(world: int, capacity: int, storage: str = "float32") -> list[Store]:
    return [
        Store(owned(rank, SHARDS, world), SHARDS, capacity, DIM, CLASSES, storage) for rank in range(world)
    ]


def published(ranks: list[Store], rows: BankRows) -> list[torch.Tensor]:
    """Every rank stores what it owns; the slots that were written."""
    owner = owner_of(partition_of(rows.image, SHARDS), SHARDS, len(ranks))
    return [store.put(take(rows, owner == rank)) for rank, store in enumerate(ranks)]


def everything(ranks: list[Store], least_step: int = 0) -> BankRows:
    rows = concatenate([take(store.rows, store.live()) for store in ranks])
    return take(rows, rows.step >= least_step)


def eligible(store: Store, least_step: int = 0) -> torch.Tensor:
    return store.alive[: store.used] & (store.rows.step[: store.used] >= least_step)


def merged(
    ranks: list[Store], queries: Queries, k: int, caches: list[IndexCache] | None = None, least_step: int = 0
) -> dict[str, tuple[list, torch.Tensor]]:
    """Of each kind: (image, segment) of the rows that each query gets from all ranks, and similarities."""
    found = [
        lookup(store, cache, queries, KINDS, k, eligible(store, least_step))
        for store, cache in zip(ranks, caches or [None] * len(ranks), strict=True)
    ]
    assert all(tuple(each) == KINDS for each in found)
    answers = {}
    for kind in KINDS:
        similarity = torch.cat([each[kind].similarity for each in found], dim=1)
        slots = [each[kind].slot.clamp(min=0) for each in found]
        image, segment = (
            torch.cat([getattr(s.rows, name)[at] for s, at in zip(ranks, slots, strict=True)], dim=1)
            for name in ("image", "segment")
        )
        order = in_order(similarity, image, segment)[:, :k]
        similarity, image, segment = (each.gather(1, order) for each in (similarity, image, segment))
        met = (similarity > -torch.inf).tolist()
        named = [
            [row for row, there in zip(zip(*pair, strict=True), seen, strict=True) if there]
            for *pair, seen in zip(image.tolist(), segment.tolist(), met, strict=True)
        ]
        answers[kind] = named, similarity
    return answers


def batches():
    images = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(1, 5)), max_size=6)
    return st.lists(st.tuples(images, st.integers(-1, 2), st.integers(0, 2**31)), max_size=8)


@settings(deadline=None, max_examples=60)
@given(
    history=batches(),
    world=st.integers(1, 5),
    capacity=st.integers(5, 12),
    k=st.integers(1, 8),
    coarse=st.booleans(),
    storage=st.sampled_from(["float32", "float16", "bfloat16"]),
    least_step=st.sampled_from([0, 0, 5]),
)
def test_any_history_over_any_number_of_ranks_answers_as_one_search(
    history, world, capacity, k, coarse, storage, least_step
):
    """After every publish, for every kind; rows are replaced, evicted, late, and of queries' images."""
    ranks, step = stores(world, capacity, storage), 4
    asking = rows_of(["image 0", "image 3", "new"], [2, 2, 3], seed=len(history), coarse=coarse)
    queries = queries_of(asking)
    for images, ahead, seed in history:
        step = max(step, step + ahead)
        keys, counts = ([part[at] for part in images] for at in (0, 1))
        rows = rows_of(keys, counts, step=step + min(ahead, 0), seed=seed, coarse=coarse, storage=storage)
        published(ranks, shuffled(rows, seed))
        held = everything(ranks, least_step)
        for kind, (named, _) in merged(ranks, queries, k, least_step=least_step).items():
            assert named == brute_force(kind, queries, held, k), kind


def test_nobody_asks():
    ranks = stores(2, 12)
    published(ranks, rows_of(KEYS, [2] * 12))
    for named, similarity in merged(ranks, queries_of(rows_of([], [])), 3).values():
        assert named == [] and similarity.shape == (0, 3)


def test_an_empty_bank_answers_nothing():
    for named, similarity in merged(stores(3, 12), queries_of(rows_of(["a"], [2])), 3).values():
        assert named == [[], []] and (similarity == -torch.inf).all()


@contextmanager
def every_list_searched(fetched: int | None):
    """For however few rows, and given new ones early. fetched: entries, by a file that cannot filter."""
    with pytest.MonkeyPatch.context() as patch:
        if fetched:
            patch.setattr(cache_module, "InvertedFile", GpuInvertedFile)
            patch.setattr(index_module, "DEPTH", fetched)
        patch.setattr(module, "FEW", -1)
        patch.setattr(cache_module, "PROBES", 1 << 10)
        patch.setattr(cache_module, "NEW_ROWS", 6)
        yield


@settings(deadline=None, max_examples=40)
@given(
    first=st.lists(st.tuples(st.sampled_from(KEYS), st.integers(2, 5)), min_size=3, max_size=8),
    history=batches(),
    world=st.integers(1, 3),
    k=st.integers(1, 6),
    storage=st.sampled_from(["float32", "bfloat16"]),
    expires=st.booleans(),
    fetched=st.sampled_from([None, 4, 12, 100]),
)
def test_an_inverted_file_of_which_all_lists_are_searched_is_exact_after_any_history(
    first, history, world, k, storage, expires, fetched
):
    """New rows answer at once, gone ones no more, invalidate slots never by what was in them."""
    with every_list_searched(fetched):
        ranks, step = stores(world, 14, storage), 4
        asking = queries_of(rows_of(["image 0", "image 3", "new"], [2, 2, 3], seed=len(history)))
        published(ranks, rows_of(*map(list, zip(*first, strict=True)), step=3, storage=storage))
        caches = [IndexCache.of(store, seed=1) if len(store) else None for store in ranks]
        for images, ahead, seed in history:
            step = max(step, step + ahead)
            keys, counts = ([part[at] for part in images] for at in (0, 1))
            rows = rows_of(keys, counts, step=step + min(ahead, 0), seed=seed, storage=storage)
            for cache, slots in zip(caches, published(ranks, rows), strict=True):
                if cache:
                    cache.invalidate(slots.numpy())
            for store, cache in zip(ranks, caches, strict=True):
                if expires:
                    store.expire(step - 2)
                if cache:
                    cache.upkeep()
            held, compared = everything(ranks), merged(ranks, asking, k)
            for kind, (named, similarity) in merged(ranks, asking, k, caches).items():
                assert named == brute_force(kind, asking, held, k), kind
                assert torch.equal(similarity, compared[kind][1])
