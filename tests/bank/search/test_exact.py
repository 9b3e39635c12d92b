"""Exact search against a sort of all pairs, and the merge of what several stores found."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from benchmarks import launches
from spml_dist.bank.search import exact as module
from spml_dist.bank.search.exact import SlotNeighbours, in_order, nearest, ranked
from spml_dist.bank.search.filters import Kind, Queries
from spml_dist.bank.store import Store
from spml_dist.config import load
from spml_dist.records import BankRows
from tests.bank.builders import CLASSES, brute_force, queries_of, rows_of
from tests.conftest import SMALL

KINDS = get_args(Kind)


def filled(rows: BankRows, storage: str = "float32") -> Store:
    dim, words = rows.vector.shape[1], rows.tags.shape[1]
    store = Store(range(1), 1, max(1, len(rows)), dim, CLASSES if words == 1 else 63 * words, storage)
    store.put(rows)
    return store


def names(store: Store, found: SlotNeighbours) -> list[list[tuple[int, int]]]:
    return [
        [(int(store.rows.image[s]), int(store.rows.segment[s])) for s in row if s >= 0]
        for row in found.slot.tolist()
    ]


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    images=st.integers(0, 12),
    k=st.integers(1, 9),
    tile=st.integers(1, 40),
    at_once=st.integers(1, 12),
    coarse=st.booleans(),
    storage=st.sampled_from(["float32", "float16", "bfloat16"]),
)
def test_it_is_the_head_of_a_sort(kind, seed, images, k, tile, at_once, coarse, storage):
    """Tiles of any size; half of the queries come from the same images; many vectors are alike."""
    keys = [f"{i}" for i in range(images)]
    rows = rows_of(keys, [1 + i % 5 for i in range(images)], seed=seed, coarse=coarse, storage=storage)
    asking = rows_of(["0", "1", "q"], [2, 3, 4], seed=seed + 1, coarse=coarse)
    store, queries = filled(rows, storage), queries_of(asking)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TILE", tile)
        patch.setattr(module, "QUERIES", at_once)
        found = nearest(store, queries, [kind], k, store.live())[kind]
    assert found.slot.shape == found.similarity.shape == (len(queries), k)
    assert names(store, found) == brute_force(kind, queries, rows, k)
    met = found.slot >= 0
    exact = (queries.vector[:, None] * store.rows.vector[found.slot].float()).sum(dim=2)
    assert torch.equal(found.similarity[met], exact[met]) and (found.similarity[~met] == -torch.inf).all()
    assert (met[:, 1:] <= met[:, :-1]).all()


def test_many_kinds_at_once_are_each_alone():
    rows, queries = (
        rows_of(["a", "b", "c", "d"], [9, 8, 7, 6]),
        queries_of(rows_of(["a", "q"], [4, 5], seed=1)),
    )
    store = filled(rows)
    together = nearest(store, queries, KINDS, 5, store.live())
    assert tuple(together) == KINDS
    for kind in KINDS:
        alone = nearest(store, queries, [kind], 5, store.live())[kind]
        assert torch.equal(together[kind].slot, alone.slot)
        assert torch.equal(together[kind].similarity, alone.similarity)
    assert nearest(store, queries, [], 5, store.live()) == {}


@pytest.mark.parametrize("rows", [2000, 2003, 2015])
def test_the_largest_in_parts_are_the_largest_of_all(rows):
    """Rows beyond the last whole part count too."""
    similarity = torch.randn(5, rows, generator=torch.Generator().manual_seed(rows))
    similarity[:, -1] = 9
    values, index = module._top(similarity, 17)
    assert rows > 4 * module.PARTS * 17
    assert torch.equal(values, similarity.topk(17, dim=1).values)
    assert torch.equal(index, similarity.topk(17, dim=1).indices)


def test_only_the_given_slots_answer():
    rows, queries = rows_of(["a", "b"], [9, 8]), queries_of(rows_of(["q"], [4], seed=1))
    store = filled(rows)
    some = store.live()[::3]
    found = nearest(store, queries, ["any"], 20, some)["any"]
    assert all(sorted(row[: len(some)]) == sorted(some.tolist()) for row in found.slot.tolist())
    assert (found.slot[:, len(some) :] == -1).all()


def test_nobody_asks_and_nobody_answers():
    store, nobody = filled(rows_of(["a"], [3])), queries_of(rows_of([], []))
    nothing = nearest(store, nobody, KINDS, 4, store.live())
    assert all(found.slot.shape == found.similarity.shape == (0, 4) for found in nothing.values())
    empty, queries = filled(rows_of([], [])), queries_of(rows_of(["q"], [2]))
    found = nearest(empty, queries, ["any"], 4, empty.live())["any"]
    assert (found.slot == -1).all() and (found.similarity == -torch.inf).all() and found.slot.shape == (2, 4)


@pytest.mark.parametrize("queries", [1, 2, 33])
@pytest.mark.parametrize("rows", [30, 203, 1000])
@pytest.mark.parametrize("dim", [6, 64, 97])
def test_of_rows_that_are_all_alike_the_first_answer(queries, rows, dim):
    """Products of equal vectors may differ in the last bit from one place of a matrix to another."""
    held = rows_of([f"{i}" for i in range(rows)], [1] * rows, dim=dim, seed=queries)
    held.vector[:] = held.vector[0].clone()
    asking = queries_of(rows_of(["q"], [queries], seed=4, dim=dim))
    store = filled(held)
    found = nearest(store, asking, ["any"], 5, store.live())["any"]
    first = sorted(held.image.tolist())[:5]
    assert [[image for image, _ in row] for row in names(store, found)] == [first] * queries


@pytest.mark.parametrize("rows", [40, 700])
def test_rows_that_are_nearly_alike_are_found_whatever_their_place(rows):
    """A few steps of the last bit apart: what is found does not depend on the order of the slots."""
    generator = torch.Generator().manual_seed(0)
    held = rows_of([f"{i}" for i in range(rows)], [1] * rows, dim=64)
    held.vector[:] = normalize(torch.randn(64, generator=generator), dim=0)
    held.vector[:] += torch.randint(-2, 3, held.vector.shape, generator=generator) * 2**-27
    asking = queries_of(rows_of(["q"], [7], seed=4, dim=64))
    found = []
    for order in (held.position, torch.randperm(rows, generator=generator).int()):
        store = filled(replace(held, position=order))
        found.append(names(store, nearest(store, asking, ["any"], 5, torch.arange(rows))["any"]))
    exact = (asking.vector[:, None] * held.vector).sum(dim=2)
    identity = list(zip(held.image.tolist(), held.segment.tolist(), strict=True))
    wanted = [
        [identity[r] for r in sorted(range(rows), key=lambda r, s=s: (-s[r], identity[r]))[:5]]
        for s in exact.tolist()
    ]
    assert found == [wanted, wanted]


def test_in_float64_similarities_are_too():
    rows, asking = rows_of(["a", "b"], [9, 8]), queries_of(rows_of(["q"], [4], seed=1))
    store = filled(rows)
    exact = replace(asking, vector=normalize(asking.vector.double(), dim=1))
    found = nearest(store, exact, ["any"], 3, store.live())["any"]
    assert found.similarity.dtype == torch.float64
    wanted = (exact.vector @ rows.vector.double().T).sort(dim=1, descending=True).values[:, :3]
    assert (found.similarity - wanted).abs().max() <= 1e-15


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_queries_in_half_precision_are_compared_in_full(dtype):
    rows = rows_of([f"{i}" for i in range(50)], [1] * 50, coarse=True)
    asking = queries_of(rows_of(["q"], [6], seed=1, coarse=True))
    store = filled(rows)
    half = nearest(store, replace(asking, vector=asking.vector.to(dtype)), ["any"], 4, store.live())["any"]
    full = nearest(store, asking, ["any"], 4, store.live())["any"]
    assert torch.equal(half.slot, full.slot) and torch.equal(half.similarity, full.similarity)


class TestInOrder:
    @settings(deadline=None)
    @given(
        rows=st.lists(
            st.tuples(st.sampled_from([-torch.inf, -0.5, 0.5, 1.0]), st.integers(-2, 2), st.integers(0, 3)),
            min_size=1,
            max_size=12,
            unique_by=lambda row: row[1:],
        )
    )
    def test_by_similarity_then_image_then_segment(self, rows):
        similarity, image, segment = (
            torch.tensor([[row[at] for row in rows]], dtype=kind)
            for at, kind in enumerate((torch.float32, torch.int64, torch.int32))
        )
        ours = [rows[i] for i in in_order(similarity, image, segment)[0].tolist()]
        wanted = sorted(rows, key=lambda row: (-row[0], *row[1:]))
        finite = sum(row[0] > -torch.inf for row in rows)
        assert ours[:finite] == wanted[:finite] and sorted(ours) == sorted(rows)

    def test_a_query_without_ties_keeps_its_order_beside_one_with(self):
        similarity = torch.tensor([[0.1, 0.9, 0.5], [0.5, 0.5, 0.7]])
        image = torch.tensor([[1, 2, 3], [9, -9, 3]])
        assert in_order(similarity, image, image.int() * 0).tolist() == [[1, 2, 0], [2, 1, 0]]


def test_ranked_takes_proposals_in_any_order_and_pads():
    rows, queries = rows_of(["a"], [6]), queries_of(rows_of(["q"], [2], seed=1))
    store = filled(rows)
    proposed = torch.tensor([[4, -1, 0, 2], [-1, -1, 5, -1]])
    found = ranked(store, queries, proposed, 5)
    exact = queries.vector @ rows.vector.T
    best = sorted([4, 0, 2], key=lambda slot: -exact[0, slot].item())
    assert found.slot.tolist() == [[*best, -1, -1], [5, -1, -1, -1, -1]]
    assert ranked(store, queries, proposed[:, :0], 3).slot.tolist() == [[-1] * 3] * 2


def test_rows_of_the_own_image_never_answer_however_many_there_are():
    rows = rows_of(["own", "other"], [300, 1])
    queries: Queries = queries_of(rows_of(["own"], [3], seed=2))
    store = filled(rows)
    found = nearest(store, queries, ["any"], 4, store.live())["any"]
    assert names(store, found) == [[(int(rows.image[-1]), 0)]] * 3


def test_a_gpu_starts_as_few_operations_as_its_memory_allows():
    """Counted on tensors without numbers: a tile there takes 134 MB, whatever the number of rows."""
    few, more, many = (launches.search(rows, load(SMALL)) for rows in (10_000, 200_000, 2_000_000))
    assert few.now.operations == more.now.operations < many.now.operations
    of_rows = 2_000_000 * (4 * 32 + 8 * 3 + 4 + 2 + 1 + 1)  # what the rows and their slots take
    assert many.peak - of_rows < 8 * 134e6
