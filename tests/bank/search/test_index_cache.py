"""The inverted file over a store: held to its recall, exact where it promises to be, never out of date."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from spml_dist.bank.search import faiss_index as index_module
from spml_dist.bank.search import index_cache as cache_module
from spml_dist.bank.search import lookup as lookup_module
from spml_dist.bank.search.centroids import centroids
from spml_dist.bank.search.exact import SLACK, SlotNeighbours
from spml_dist.bank.search.faiss_index import (
    GpuInvertedFile,
    InvertedFile,
    InvertedLists,
    nearest_lists,
    require_gpu,
)
from spml_dist.bank.search.filters import Kind, Queries
from spml_dist.bank.search.index_cache import IndexCache, Wear
from spml_dist.bank.search.lookup import lookup
from spml_dist.bank.search.recall import measure_recall
from spml_dist.bank.store import Store
from spml_dist.errors import RunError
from spml_dist.records import BankRows
from spml_dist.tensor_records import take
from tests.bank.builders import queries_of, rows_of

KINDS = get_args(Kind)
DIM, CLASSES, SEGMENTS, K = 32, 5, 20, 8
DIRECTIONS = normalize(torch.randn(60, DIM, generator=torch.Generator().manual_seed(7)), dim=1)


def clustered(images: range, step: int, noise: float = 0.1, turned: float = 0.0) -> BankRows:
    """Noisy copies of some directions, which a drifting network turns by an angle a step."""
    rows = rows_of(
        [f"image {i}" for i in images], [SEGMENTS] * len(images), step, seed=step, dim=DIM, classes=CLASSES
    )
    generator = torch.Generator().manual_seed(step)
    which = torch.randint(0, len(DIRECTIONS), (len(rows),), generator=generator)
    directions = DIRECTIONS + turned * step * DIRECTIONS.roll(1, dims=1)
    rows.vector[:] = normalize(
        directions[which] + noise * torch.randn(len(rows), DIM, generator=generator), dim=1
    )
    return rows


def filled(rows: BankRows, capacity: int | None = None) -> Store:
    store = Store(range(2), 2, (capacity or len(rows)), DIM, CLASSES, "float32")
    store.put(rows)
    return store


def put(store: Store, cache: IndexCache, rows: BankRows) -> Tensor:
    """As the bank does."""
    slots = store.put(rows)
    cache.invalidate(slots.numpy())
    return slots


def everybody(store: Store) -> Tensor:
    return store.alive[: store.used].clone()


def answers(
    store: Store, cache: IndexCache | None, queries: Queries, kinds=KINDS, k: int = K
) -> dict[str, SlotNeighbours]:
    return lookup(store, cache, queries, kinds, k, everybody(store))


def worn(cache: IndexCache) -> bool:
    """Where there is one rank."""
    return cache.outdated(cache.wear)


def recall(store: Store, cache: IndexCache, queries: Queries, kind: Kind, k: int = K) -> float:
    ours, exact = (answers(store, each, queries, [kind], k)[kind].slot for each in (cache, None))
    met = (ours[:, :, None] == exact[:, None, :]) & (exact >= 0)[:, None, :]
    return met.sum().item() / (exact >= 0).sum().item()


def asking(count: int = 3, seed: int = 10_000, **changes) -> Queries:
    return queries_of(clustered(range(-count, 0), step=seed, **changes))


def proposed(
    file: InvertedLists, queries: np.ndarray, k: int, probes: int = 8, allowed: np.ndarray | None = None
) -> np.ndarray:
    """Slots that a file proposes from the nearest lists, of all slots or of those allowed."""
    everything = np.ones(len(file), bool)
    lists = nearest_lists(file.centroids, queries, probes)
    return file.search(queries, k, lists, everything if allowed is None else allowed)


@pytest.fixture(params=["filtering", "fetching more than it needs"])
def searched(request, monkeypatch):
    """Lists are searched although few rows pass, and new rows get their entries early; by a file that filters
    and by one that cannot, as on a GPU."""
    if request.param != "filtering":
        monkeypatch.setattr(cache_module, "InvertedFile", GpuInvertedFile)
    monkeypatch.setattr(lookup_module, "FEW", 10)
    monkeypatch.setattr(cache_module, "NEW_ROWS", 100)


class TestAnswers:
    @pytest.mark.parametrize("kind", KINDS)
    def test_on_clustered_rows_recall_is_high_and_similarities_are_the_rows_own(self, searched, kind):
        store = filled(clustered(range(200), 0))
        cache, queries = IndexCache.of(store, seed=1), asking()
        measure_recall(store, cache, asking(seed=999), [kind], K, everybody(store), 0.97)
        assert cache.inverted.lists == 506 and recall(store, cache, queries, kind) >= 0.95
        assert not cache.prefers_exact(kind)
        found = answers(store, cache, queries, [kind])[kind]
        exact = (queries.vector[:, None] * store.rows.vector[found.slot]).sum(dim=2)
        met = found.slot >= 0
        assert met.any() and torch.equal(found.similarity[met], exact[met])
        assert (found.similarity.diff(dim=1)[met[:, 1:]] <= 0).all()
        assert (store.rows.image[found.slot] != queries.image[:, None])[met].all()
        assert all(len(set(row)) == len(row) for row in (each[each >= 0].tolist() for each in found.slot))

    def test_a_search_of_fewer_lists_finds_less(self, searched, monkeypatch):
        """The lists are really what is searched: with one of 256, most of what is noise is missed."""
        monkeypatch.setattr(cache_module, "PROBES", 1)
        monkeypatch.setattr(lookup_module, "SLACK", 0)
        monkeypatch.setattr(lookup_module, "BEYOND", 0)
        store = filled(clustered(range(200), 0, noise=1.0))
        assert 0.05 < recall(store, IndexCache.of(store, seed=1), asking(noise=1.0), "any", k=2) < 0.7

    @pytest.mark.parametrize("kind", KINDS)
    def test_few_passing_rows_are_all_compared(self, monkeypatch, kind):
        monkeypatch.setattr(cache_module, "PROBES", 1)
        store, queries = filled(clustered(range(100), 0, noise=1.0)), asking(noise=1.0)
        ours, exact = (
            answers(store, each, queries, [kind])[kind] for each in (IndexCache.of(store, 1), None)
        )
        assert len(store) < lookup_module.FEW
        assert torch.equal(ours.slot, exact.slot) and torch.equal(ours.similarity, exact.similarity)

    def test_queries_of_few_passing_rows_stand_beside_others_of_many(self, monkeypatch):
        """One tag is rare: its queries are answered exactly, the others by one list."""
        monkeypatch.setattr(cache_module, "PROBES", 1)
        monkeypatch.setattr(lookup_module, "FEW", 100)
        rows, queries = clustered(range(200), 0, noise=1.0), asking(2, noise=1.0)
        rows.tags[:, 0], rows.tags_known[:] = 1, True
        rows.tags[: 4 * SEGMENTS, 0] = 2
        queries.tags[:, 0], queries.tags_known[:] = torch.tensor([1, 2]).repeat_interleave(SEGMENTS), True
        store = filled(rows)
        ours, exact = (answers(store, c, queries)["shares_tag"].slot for c in (IndexCache.of(store, 1), None))
        assert torch.equal(ours[SEGMENTS:], exact[SEGMENTS:])
        assert not torch.equal(ours[:SEGMENTS], exact[:SEGMENTS]) and (ours >= 0).all()

    def test_a_query_whose_lists_hold_too_few_is_answered_in_full(self, searched, monkeypatch):
        """Here the rows that pass are far from the query: the lists next to it hold none."""
        monkeypatch.setattr(cache_module, "PROBES", 1)
        rows, queries = clustered(range(100), 0), asking(1)
        far = (rows.vector @ queries.vector[0]) < -0.1
        rows.source[:], rows.label[:] = far.to(torch.uint8), torch.where(far, 1, -1).short()
        store = filled(rows)
        one = Queries(*(value[:1] for value in vars(queries).values()))
        assert far.sum() > lookup_module.FEW
        ours, exact = (
            answers(store, c, one, ["labelled"])["labelled"] for c in (IndexCache.of(store, 1), None)
        )
        assert torch.equal(ours.slot, exact.slot)

    def test_the_own_image_does_not_crowd_others_out(self, searched):
        """Twenty rows of the query's image are nearer than all others."""
        rows = clustered(range(200), 0)
        own = take(rows, slice(0, SEGMENTS))
        rows.vector[:SEGMENTS] = normalize(own.vector[0] + 0.001 * own.vector, dim=1)
        store = filled(rows)
        queries = queries_of(take(rows, slice(0, SEGMENTS)))
        assert recall(store, IndexCache.of(store, 1), queries, "any") > 0.97

    def test_who_is_not_eligible_does_not_answer(self, searched):
        store, queries = filled(clustered(range(100), 0)), asking()
        cache, eligible = IndexCache.of(store, 1), everybody(store)
        eligible[::2] = False
        for found in lookup(store, cache, queries, KINDS, K, eligible).values():
            assert (found.slot[found.slot >= 0] % 2 == 1).all()

    def test_kinds_come_back_in_their_order_though_some_are_exhausted(self):
        """Ranks exchange answers kind by kind: an order of their own would mix them up."""
        store = filled(clustered(range(50), 0))
        cache = IndexCache.of(store, 1)
        cache.probes["labelled"] = 1 << 20
        assert cache.prefers_exact("labelled")
        assert tuple(answers(store, cache, asking())) == KINDS

    def test_nobody_asks(self):
        store = filled(clustered(range(50), 0))
        for found in answers(store, IndexCache.of(store, 1), queries_of(clustered(range(0), 1))).values():
            assert found.slot.shape == (0, K)


class TestFreshness:
    def test_a_published_row_finds_itself_at_once(self, searched):
        store = filled(clustered(range(200), 0), capacity=3000)
        cache = IndexCache.of(store, 1)
        for step in range(1, 8):
            rows = clustered(range(1000 + 3 * step, 1003 + 3 * step), step)
            put(store, cache, rows)
            others = replace(queries_of(rows), image=rows.image + 1)
            found = answers(store, cache, others, ["any"], 1)["any"]
            assert torch.equal(store.rows.image[found.slot[:, 0]], rows.image)
            assert torch.equal(store.rows.segment[found.slot[:, 0]], rows.segment)
            cache.upkeep()

    def test_new_rows_get_entries_once_they_are_many(self, searched):
        store = filled(clustered(range(100), 0), capacity=3000)
        cache = IndexCache.of(store, 1)
        slots = put(store, cache, clustered(range(100, 104), 1)).numpy()
        cache.upkeep()
        assert not cache.current(store.used)[slots].any() and len(cache.inverted) == 2000
        put(store, cache, clustered(range(104, 105), 2))
        cache.upkeep()
        assert cache.current(store.used)[store.alive[: store.used].numpy()].all()
        assert len(cache.inverted) == store.used == 2100

    @pytest.mark.parametrize("updated", [False, True])
    def test_an_overwritten_slot_does_not_answer_with_what_was_in_it(self, searched, updated):
        store = filled(clustered(range(100), 0))
        before = take(store.rows, store.live())
        cache = IndexCache.of(store, 1)
        again = clustered(range(20), 1)
        again.vector[:] = -before.vector[torch.isin(before.image, again.image)]
        slots = put(store, cache, again)
        if updated:
            cache.update()
        assert (cache.current(store.used)[slots.numpy()] == updated).all()
        for asked in (take(before, slice(0, 300)), again):
            queries = replace(queries_of(asked), image=asked.image + 1)
            ours, exact = (answers(store, each, queries, ["any"], 3)["any"] for each in (cache, None))
            assert (ours.similarity <= exact.similarity).all()
            images = store.rows.image[ours.slot]
            assert ((ours.similarity - 1).abs() < 1e-3).any(dim=1)[asked.step == 1].all()
            stale = torch.isin(asked.image, again.image) & (asked.step == 0)
            itself = (images == asked.image[:, None]) & (ours.similarity > 0.999)
            assert not itself[stale].any()

    def test_rows_that_were_forgotten_do_not_answer(self, searched):
        store = filled(clustered(range(100), 0), capacity=4000)
        put(store, cache := IndexCache.of(store, 1), clustered(range(100, 150), 5))
        cache.update()
        store.expire(5)
        found = answers(store, cache, asking(noise=0.2))["any"]
        assert store.alive[found.slot].all() and (store.rows.step[found.slot] == 5).all()
        store.expire(6)
        assert (answers(store, cache, asking())["any"].slot == -1).all()

    def test_slots_that_are_free_at_an_update_are_indexed_once_they_are_used(self, searched, monkeypatch):
        """Entries of slots without a row are there, and are no rows."""
        monkeypatch.setattr(cache_module, "PROBES", 256)
        store = filled(clustered(range(100), 0), capacity=2000)
        cache = IndexCache.of(store, 1)
        gone = put(store, cache, clustered(range(100, 105), 1))
        put(store, cache, clustered(range(105, 110), 2))
        store.expire(2)
        cache.update()
        assert len(cache.inverted) == store.used == 2200 and not cache.current(store.used)[gone].any()
        assert recall(store, cache, asking(), "any") == 1
        slots = put(store, cache, clustered(range(110, 215), 3))
        assert torch.isin(gone, slots).all()
        cache.update()
        assert len(cache.inverted) == store.used == 2200 and cache.current(store.used)[gone].all()
        assert recall(store, cache, asking(), "any") == 1


class TestUpkeep:
    def test_after_ten_rounds_of_replacement_recall_is_what_was_asked(self, searched):
        """A drifting network: every image is replaced ten times, and nothing is trained anew."""
        store = filled(clustered(range(150), 0, turned=0.03))
        cache, rounds = IndexCache.of(store, 1), 10
        for step in range(1, 1 + 15 * rounds):
            part = step % 15
            put(store, cache, clustered(range(10 * part, 10 * part + 10), step, turned=0.03))
            cache.upkeep()
        queries = asking(8, seed=15 * rounds, turned=0.03)
        seen = measure_recall(store, cache, queries, KINDS, K, everybody(store), 0.95)
        assert len(store) == cache.trained_on == 3000 and cache.rows_changed == rounds * 3000
        for kind in KINDS:
            assert seen[kind][0] >= 0.95 * seen[kind][1] and recall(store, cache, queries, kind) >= 0.9

    def test_it_is_worn_by_twice_the_rows(self):
        store = filled(clustered(range(10), 0), capacity=1000)
        cache = IndexCache.of(store, 1)
        store.put(clustered(range(10, 20), 1))
        assert not worn(cache)
        store.put(clustered(range(20, 21), 2))
        assert worn(cache)

    def test_it_is_worn_where_recall_fell_and_half_of_the_rows_are_others(self):
        """What it finds at first may need wide searches; that alone no other centroids would change."""
        store = filled(clustered(range(10), 0))
        cache = IndexCache.of(store, 1)
        cache.widen("any")
        put(store, cache, clustered(range(6), 1))
        assert not worn(cache)  # wide from the start
        cache.recall_measured = True
        cache.widen("labelled")
        assert worn(cache)
        fresh = IndexCache.of(store, 1)
        fresh.recall_measured = True
        fresh.widen("any")
        put(store, fresh, clustered(range(6, 10), 2))
        assert not worn(fresh)  # the rows are nearly those that it was trained on

    def test_it_is_worn_where_recall_never_was_good_and_half_of_the_rows_are_others(self, searched):
        """The rows of an untrained network say little; those of a trained one deserve a file of their own."""
        store = filled(clustered(range(10), 0, noise=3.0))
        cache = IndexCache.of(store, 1)
        measure_recall(store, cache, asking(noise=3.0), ["any"], K, everybody(store), least=1.0)
        assert cache.prefers_exact("any") and not cache.recall_fell and not worn(cache)
        put(store, cache, clustered(range(6), 1))
        assert worn(cache)

    def test_the_rows_of_all_ranks_wear_it(self):
        """Its own are a few of them; one rank's poor recall is everybody's."""
        cache = IndexCache.of(filled(clustered(range(10), 0)), 1, rows=1000)
        assert not cache.outdated(Wear(2000, 9999))
        assert cache.outdated(Wear(2001)) and cache.outdated(Wear(1000, 501, 1))
        assert not cache.outdated(Wear(1000, 500, 3))

    def test_a_rank_without_rows_has_one_and_finds_nothing_until_some_come(self):
        store = filled(clustered(range(0), 0), capacity=1000)
        cache = IndexCache.of(store, 1, rows=1000)
        assert (answers(store, cache, asking(), ["any"])["any"].slot == -1).all()
        put(store, cache, clustered(range(100), 0))
        cache.update()
        assert recall(store, cache, asking(), "any") == 1

    def test_what_it_knows_of_itself_can_be_put_back(self):
        store = filled(clustered(range(10), 0))
        cache, other = IndexCache.of(store, 1), IndexCache.of(store, 1)
        cache.recall_measured = True
        cache.widen("any")
        put(store, cache, clustered(range(6), 1))
        other.resume(cache.state())
        assert other.state() == cache.state() and worn(other) and other.probes == {"any": 16}

    def test_an_update_can_leave_rows_without_entries(self):
        """As a snapshot needs it: the same rows are unknown to the inverted file as before."""
        store = filled(clustered(range(40), 0), capacity=1000)
        original = IndexCache.of(store, 1)
        slots = put(store, original, clustered(range(30, 50), 1)).numpy()
        unknown = np.zeros(store.used, bool)
        unknown[slots] = True
        restored = IndexCache(store, original.inverted.centroids)
        restored.update(but=unknown)
        assert (restored.current(store.used) == original.current(store.used)).all()
        assert (restored.current(store.used) == (store.alive[: store.used].numpy() & ~unknown)).all()
        for kind, found in answers(store, restored, asking()).items():
            assert torch.equal(found.slot, answers(store, original, asking())[kind].slot)
        restored.update()
        assert restored.current(store.used)[store.alive[: store.used].numpy()].all()
        assert recall(store, restored, asking(), "any") > 0.97

    def test_it_depends_on_the_rows_and_not_on_their_slots(self):
        rows = clustered(range(60), 0)
        other = Store(range(2), 2, len(rows) + 100, DIM, CLASSES, "float32")
        other.put(clustered(range(900, 905), -1))
        other.put(take(rows, rows.position % 2 == 1))
        other.expire(0)
        other.put(take(rows, rows.position % 2 == 0))
        ours, theirs = (IndexCache.of(store, seed=1) for store in (filled(rows), other))
        assert (ours.inverted.centroids == theirs.inverted.centroids).all()
        assert (ours.inverted.centroids != IndexCache.of(other, seed=2).inverted.centroids).any()

    def test_free_slots_make_no_difference_to_what_is_searched(self, monkeypatch):
        """A restored bank has none."""
        monkeypatch.setattr(lookup_module, "FEW", 10)
        dense, sparse = filled(clustered(range(60), 0)), filled(clustered(range(900, 960), -1), capacity=2400)
        sparse.put(clustered(range(60), 0))
        sparse.expire(0)
        assert sparse.used == 2 * dense.used and len(sparse) == len(dense)
        searched, search = [], InvertedFile.search

        def counted(file: InvertedFile, queries: np.ndarray, *more) -> np.ndarray:
            searched.append(len(queries))
            return search(file, queries, *more)

        monkeypatch.setattr(InvertedFile, "search", counted)
        for store in (dense, sparse):
            cache = IndexCache.of(store, 1)
            cache.probes |= {"any": cache.inverted.lists // 5, "other_class": cache.inverted.lists // 16}
            answers(store, cache, asking(), ["any", "other_class"])
        half = len(searched) // 2
        assert half > 1 and searched[:half] == searched[half:]

    @pytest.mark.parametrize("images", [1, 2, 5])
    def test_few_rows_make_few_lists(self, images):
        store = filled(clustered(range(images), 0))
        cache = IndexCache.of(store, 1)
        assert 1 <= cache.inverted.lists <= len(store)
        assert recall(store, cache, asking(), "any") == 1


class TestRecall:
    @pytest.fixture
    def store(self) -> Store:
        """Without any structure, where lists say little."""
        return filled(clustered(range(100), 0, noise=3.0))

    def test_lists_are_searched_more_widely_until_recall_is_what_was_asked(self, searched, store):
        queries, cache = asking(noise=3.0), IndexCache.of(store, 1)
        before = recall(store, cache, queries, "any")
        seen = measure_recall(store, cache, queries, ["any", "labelled"], K, everybody(store), least=0.6)
        assert before < 0.6 <= seen["any"][0] / seen["any"][1] and cache.recall_measured
        assert cache_module.PROBES < cache.probes["any"] <= 2 * (cache.inverted.lists // 4)
        assert recall(store, cache, queries, "any") > before
        assert set(seen) == {"any", "labelled"} and "shares_tag" not in cache.probes

    def test_what_it_measures_is_recall(self, searched, store):
        queries, cache = asking(1, noise=3.0), IndexCache.of(store, 1)
        hits, rows = measure_recall(store, cache, queries, ["any"], K, everybody(store), least=0.01)["any"]
        assert rows == SEGMENTS * K and hits / rows == recall(store, cache, queries, "any") < 1

    def test_a_kind_that_would_need_nearly_all_lists_is_compared_with_all_rows(self, searched, store):
        queries, cache = asking(noise=3.0), IndexCache.of(store, 1)
        seen = measure_recall(store, cache, queries, ["any"], K, everybody(store), least=1.0)
        assert (
            cache.prefers_exact("any")
            and not cache.prefers_exact("labelled")
            and seen["any"][0] == seen["any"][1]
        )
        ours, exact = (answers(store, each, queries, ["any"])["any"] for each in (cache, None))
        assert torch.equal(ours.slot, exact.slot) and torch.equal(ours.similarity, exact.similarity)

    def test_nothing_to_find_is_found(self, searched):
        store = filled(clustered(range(20), 0))
        cache = IndexCache.of(store, 1)
        store.rows.source[:] = 0
        assert measure_recall(store, cache, asking(), ["labelled"], K, everybody(store), 1.0) == {
            "labelled": (0, 0)
        }
        assert not cache.probes and not cache.recall_measured

    def test_of_fewer_passing_rows_fewer_lists_are_worth_searching(self):
        cache = IndexCache.of(filled(clustered(range(100), 0)), 1)
        cache.widen("labelled")
        assert not cache.prefers_exact("labelled") and cache.prefers_exact("labelled", share=0.1)
        assert not cache.prefers_exact("any", share=0)  # never narrower than at first


class TestGpuInvertedFile:
    """A file that neither filters nor forgets, in main memory."""

    @pytest.fixture
    def file(self):
        vectors = clustered(range(20), 0).vector.numpy()
        file = GpuInvertedFile(centroids(vectors, 8, seed=1))
        file.extend(vectors[:300])
        file.extend(vectors[300:])
        return file, vectors

    def test_with_all_lists_it_proposes_every_slot_once_the_nearest_first(self, file):
        file, vectors = file
        slots = proposed(file, vectors[:5], 400)
        assert [sorted(row) for row in slots.tolist()] == [list(range(400))] * 5
        assert slots[:, 0].tolist() == [0, 1, 2, 3, 4]

    def test_only_the_latest_entry_of_a_slot_proposes_it(self, file):
        file, vectors = file
        file.replace(np.arange(3, 9), -vectors[3:9])
        file.replace(np.arange(3, 6), vectors[:3])
        file.replace(np.arange(6, 9), -vectors[[0, 0, 0]])
        slots = proposed(file, vectors[:1], 400)[0].tolist()
        assert len(file) == 400 and sorted(slots) == list(range(400))
        assert set(slots[:2]) == {0, 3} and set(slots[-3:]) == {6, 7, 8}

    def test_only_allowed_slots_are_proposed(self, file):
        file, vectors = file
        allowed = np.arange(400) % 3 == 0
        slots = proposed(file, vectors[:5], 200, allowed=allowed)
        assert all(set(row) == {-1, *range(0, 400, 3)} for row in slots.tolist())

    def test_it_is_crowded_once_most_entries_are_out_of_date(self, file):
        file, vectors = file
        file.replace(np.arange(400), vectors)
        assert not file.crowded
        file.replace(np.arange(1), vectors[:1])
        assert file.crowded
        file.clear()
        assert (len(file), file.crowded) == (0, False)
        assert (proposed(file, vectors[:2], 5, 8) == -1).all()

    def test_a_crowded_one_starts_again_and_answers_as_before(self, monkeypatch):
        monkeypatch.setattr(cache_module, "InvertedFile", GpuInvertedFile)
        monkeypatch.setattr(cache_module, "NEW_ROWS", 100)
        store = filled(clustered(range(100), 0))
        cache = IndexCache.of(store, seed=1)
        for step in (1, 2):
            put(store, cache, clustered(range(100), step))
            cache.upkeep()
        assert cache.inverted.crowded
        put(store, cache, clustered(range(1), 3))  # so few that they alone would get no entry
        cache.upkeep()
        assert not cache.inverted.crowded and cache.current(store.used).all()
        assert len(cache.inverted) == store.used
        assert recall(store, cache, asking(), "any") >= 0.95

    def test_a_fetch_that_was_cut_off_and_leaves_too_few_proposes_nothing(self, file, monkeypatch):
        """Nearer rows may lie beyond it: the caller compares such queries with all rows."""
        file, vectors = file
        monkeypatch.setattr(index_module, "DEPTH", 20)
        allowed = np.ones(400, bool)
        allowed[proposed(file, vectors[:1], 16)[0]] = False
        assert (proposed(file, vectors[:1], 5, allowed=allowed) == -1).all()
        assert (proposed(file, vectors[:1], 4, allowed=allowed) >= 0).all()

    def test_it_takes_no_more_than_a_gpu_gives(self, file, monkeypatch):
        file, vectors = file
        narrow = proposed(file, vectors[:5], 20, 3)
        monkeypatch.setattr(index_module, "ON_GPU", 20)
        assert np.array_equal(proposed(file, vectors[:5], 20, 3), narrow)
        monkeypatch.setattr(index_module, "ON_GPU", 3)
        assert np.array_equal(proposed(file, vectors[:5], 3, 8), narrow[:, :3])
        assert file._index.nprobe == 3

    @pytest.mark.parametrize("fetched", [K + 2, K + SLACK - 1])
    def test_a_query_that_fetched_hardly_more_than_it_needs_is_compared_with_all(self, fetched, monkeypatch):
        """Copies in half precision order them: the best may be beyond."""
        monkeypatch.setattr(cache_module, "InvertedFile", GpuInvertedFile)
        monkeypatch.setattr(lookup_module, "FEW", 10)
        monkeypatch.setattr(index_module, "ON_GPU", fetched)
        store, queries = filled(clustered(range(100), 0, noise=1.0)), asking(noise=1.0)
        assert recall(store, IndexCache.of(store, 1), queries, "any") == 1
        monkeypatch.setattr(index_module, "ON_GPU", 2048)
        assert recall(store, IndexCache.of(store, 1), queries, "any") < 1

    def test_a_machine_without_gpus_is_told_how_to_go_on(self):
        with pytest.raises(RunError, match=r"FAISS sees no GPU.*EXTRA=gpu.*bank\.gpu_index=false"):
            require_gpu()

    def test_on_a_gpu_it_proposes_what_it_does_in_main_memory(self, file):
        import faiss

        if not faiss.get_num_gpus():
            pytest.skip("FAISS sees no GPU: this machine has none, or FAISS was installed without GPUs")
        file, vectors = file
        on_gpu = GpuInvertedFile(file.centroids, gpu=0)
        on_gpu.extend(vectors)
        ours, theirs = (proposed(each, vectors[:50], K) for each in (on_gpu, file))
        same = (ours[:, :, None] == theirs[:, None, :]).any(axis=2)
        assert same.mean() > 0.99  # sums in another order


class TestInverted:
    ROWS = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)

    @pytest.fixture
    def inverted(self) -> InvertedFile:
        made = InvertedFile(centroids(self.ROWS, 8, seed=1))
        made.extend(self.ROWS)
        return made

    def test_all_lists_hold_all_entries_once(self, inverted):
        found = proposed(inverted, self.ROWS[:5], 500, 8)
        assert len(inverted) == 500 and all(sorted(row) == list(range(500)) for row in found.tolist())

    def test_only_who_is_allowed_is_found(self, inverted):
        allowed = np.random.default_rng(1).random(500) < 0.3
        found = proposed(inverted, self.ROWS[:5], 500, 8, allowed)
        assert all(set(row) - {-1} == set(np.flatnonzero(allowed)) for row in found.tolist())

    def test_replaced_entries_move_to_their_lists(self, inverted):
        slots = np.array([0, 7, 499])
        inverted.replace(slots, -self.ROWS[slots])
        found = proposed(inverted, -self.ROWS[slots], 1, 1)
        assert len(inverted) == 500 and found[:, 0].tolist() == slots.tolist()
        inverted.replace(slots[:0], self.ROWS[:0])

    def test_of_equal_entries_beyond_the_last_none_is_proposed_whatever_their_order(self):
        """Written anew, an entry stands last in its list; after a restore all stand by slot."""
        rows = np.concatenate([self.ROWS[:5], self.ROWS[5:6].repeat(40, axis=0)])
        files = [InvertedFile(centroids(self.ROWS, 8, seed=1)) for _ in range(2)]
        for file in files:
            file.extend(rows)
        files[1].replace(np.arange(5, 25), rows[5:25])
        query = self.ROWS[5:6] + 0.1 * self.ROWS[:1]
        for k in (3, 10, 41):
            one, other = (proposed(file, query, k, 8) for file in files)
            assert (one == other).all() and one.shape == (1, k) and (one == -1).any() == (k < 41)
        assert set(range(5, 45)) < set(one[0].tolist())

    def test_a_wider_search_finds_no_less(self, inverted):
        exact = np.argsort(-self.ROWS[:50] @ self.ROWS.T, axis=1)[:, :10]
        recalls = []
        for probes in (1, 2, 4, 8, 100):
            found = proposed(inverted, self.ROWS[:50], 10, probes)
            recalls.append(np.mean([len(set(a) & set(b)) for a, b in zip(found, exact, strict=True)]) / 10)
        assert recalls == sorted(recalls) and recalls[0] < 0.9 and recalls[-1] > 0.99

    def test_centroids_are_unit_vectors_of_the_seed(self):
        ours = centroids(self.ROWS, 8, seed=1)
        assert ours.shape == (8, 16) and ours.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, rtol=1e-5)
        assert (centroids(self.ROWS, 8, seed=1) == ours).all()
        assert (centroids(self.ROWS, 8, seed=2) != ours).any()
        assert centroids(self.ROWS[:8], 8, seed=2**40).shape == (8, 16)
