"""Which rows join a step: everybody's nearest first, and a draw that depends on the row alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.counting import counted
from spml_dist.bank.rows import ANNOTATED
from spml_dist.bank.sampling import (
    draw_probabilities,
    draw_rows,
    row_weights,
    slots_of_rows,
    union_of_neighbours,
)
from spml_dist.bank.store import Store
from spml_dist.hashing import image_hash
from spml_dist.records import Neighbours
from spml_dist.tensor_records import take
from tests.bank.builders import CLASSES, DIM, contents, rows_of


def neighbours(answers: list[list[tuple[float, int, int]]], k: int) -> Neighbours:
    """From (similarity, image, segment) of each query's rows, best first."""
    padded = [each + [(-torch.inf, 0, -1)] * (k - len(each)) for each in answers]
    similarity, image, segment = (
        torch.tensor([[one[at] for one in each] for each in padded], dtype=kind).view(len(answers), k)
        for at, kind in enumerate((torch.float32, torch.int64, torch.int32))
    )
    return Neighbours(similarity, image, segment, torch.zeros_like(segment).short())


def slowly(answers: list[list[list[tuple[float, int, int]]]], most: int) -> list[tuple[int, int]]:
    best = {}
    for kind in answers:
        for each in kind:
            for place, (similarity, *row) in enumerate(each):
                best[tuple(row)] = min(best.get(tuple(row), (99, 0.0)), (place, -similarity))
    return sorted(sorted(best, key=lambda row: (best[row], row))[:most])


@st.composite
def answered(draw):
    """Answers to some queries of each of some kinds; rows and similarities recur."""
    similarities = st.sampled_from([-0.5, -0.25, -0.0, 0.0, 0.25, 0.5])
    rows = st.tuples(similarities, st.integers(-3, 3), st.integers(0, 2))
    k = draw(st.integers(1, 4))
    best_first = st.lists(rows, max_size=k, unique_by=lambda row: row[1:]).map(
        lambda some: sorted(some, key=lambda row: -row[0])
    )
    return k, draw(st.lists(st.lists(best_first, max_size=5), max_size=3))


@settings(deadline=None)
@given(answers=answered(), most=st.integers(1, 12))
def test_best_places_come_first_then_similarities(answers, most):
    k, kinds = answers
    image, segment = union_of_neighbours([neighbours(each, k) for each in kinds], most)
    assert image.dtype == torch.int64 and segment.dtype == torch.int32
    assert list(zip(image.tolist(), segment.tolist(), strict=True)) == slowly(kinds, most)


def test_a_row_that_is_somebody_s_nearest_beats_a_more_similar_one_that_is_nobody_s():
    answers = [[(0.2, 7, 0)], [(0.9, 5, 1), (0.8, 6, 2)]]
    image, segment = union_of_neighbours([neighbours(answers, 2)], 2)
    assert image.tolist() == [5, 7] and segment.tolist() == [1, 0]


def test_of_several_answers_in_one_place_the_most_similar_speaks_for_a_row():
    answers = [[(0.2, 7, 0)], [(0.5, 5, 1)], [(0.9, 7, 0)], [(0.4, 7, 0)]]
    assert union_of_neighbours([neighbours(answers, 1)], 1)[0].tolist() == [7]


def test_the_host_is_sent_the_chosen_rows_alone_and_once():
    """Not the answers of all ranks to all queries, of which there are millions where all segments vote."""
    chosen = ("bank/sampling.py:union_of_neighbours", "places")
    with counted(answers={chosen: 5}) as counting:
        similarity = torch.empty(40, 3, device="cuda:0")
        image = similarity.long()
        answers = Neighbours(similarity, image, image.int(), image.short())
        rows = union_of_neighbours([answers, answers], 9)
    assert [len(each) for each in rows] == [5, 5] and rows[0].device.type == "cpu"
    assert counting.now.reads.total() == 1


@pytest.fixture
def store() -> Store:
    made = Store(range(3), 3, 2000, DIM, CLASSES, "float32")
    made.put(rows_of([f"{i}" for i in range(300)], [1 + i % 9 for i in range(300)]))
    return made


def test_held_are_those_rows_that_the_store_has(store):
    image = image_hash(["5", "nobody's", "8", "8", "0"])
    segment = torch.tensor([3, 0, 8, 9, 0], dtype=torch.int32)  # image 8 has segments 0..8
    rows = take(store.rows, slots_of_rows(store, image, segment))
    assert rows.image.tolist() == image[[0, 2, 4]].tolist() and rows.segment.tolist() == [3, 8, 0]
    assert len(slots_of_rows(store, image[:0], segment[:0])) == 0


class TestShares:
    @given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 200))
    def test_as_many_are_drawn_as_asked_or_all_half_of_them_annotated_where_there_are(self, a, b, sampled):
        of_annotated, of_others = draw_probabilities(a, b, sampled)
        numbers = a * of_annotated, b * min(1, of_others)
        assert sum(numbers) == pytest.approx(min(sampled, a + b))
        assert of_annotated <= 1 and of_others >= 0
        if 2 * min(a, b) >= sampled:
            assert numbers == (pytest.approx(sampled / 2), pytest.approx(sampled / 2))

    def test_a_drawn_row_stands_for_its_part_of_the_rows_of_its_kind_that_are_left(self):
        other, annotated = 0, ANNOTATED
        source = torch.tensor([annotated, other, other, annotated, annotated, other], dtype=torch.uint8)
        assert row_weights(source, 2, annotated=8, others=4).tolist() == [1, 1, 2, 4, 4, 2]
        assert row_weights(source[:2], 2, annotated=8, others=4).tolist() == [1, 1]


class TestDrawn:
    def test_each_row_is_drawn_with_the_share_of_its_kind(self, store):
        """Over many steps every row comes about as often as asked, within six standard errors."""
        slots, steps = store.live(), 400
        times = torch.zeros(len(slots))
        for step in range(steps):
            times += torch.isin(slots, draw_rows(store, slots, (0.4, 0.2), seed=1, step=step))
        share = torch.where(store.rows.source[slots] == ANNOTATED, 0.4, 0.2)
        error = (times / steps - share).abs() / (share * (1 - share) / steps) ** 0.5
        assert error.max() < 6 and abs((times / steps - share).mean()) < 0.005

    def test_a_larger_share_draws_the_same_rows_and_more(self, store):
        few, many = (set(draw_rows(store, store.live(), (s, s), 1, 7).tolist()) for s in (0.1, 0.3))
        assert few < many
        assert len(draw_rows(store, store.live(), (1.0, 1.0), 1, 7)) == len(store)
        assert len(draw_rows(store, store.live(), (0.0, 0.0), 1, 7)) == 0

    def test_it_depends_on_the_row_and_not_on_its_slot_or_on_who_holds_it(self, store):
        rows = take(store.rows, store.live())
        one = contents(take(store.rows, draw_rows(store, store.live(), (0.3, 0.3), 1, 7)))
        parts = []
        for owned in (range(0, 1), range(1, 3)):
            part = Store(owned, 3, 2000, DIM, CLASSES, "float32")
            mine = take(rows, torch.isin(rows.image.remainder(3), torch.tensor(owned)))
            part.put(take(mine, torch.arange(len(mine)).flip(0)))
            parts.append(contents(take(part.rows, draw_rows(part, part.live().flip(0), (0.3, 0.3), 1, 7))))
        assert parts[0] | parts[1] == one and not parts[0] & parts[1] and parts[0] and parts[1]

    def test_other_steps_and_seeds_draw_other_rows(self, store):
        draws = [
            frozenset(draw_rows(store, store.live(), (0.3, 0.3), seed, step).tolist())
            for seed, step in ((1, 7), (1, 8), (2, 7))
        ]
        assert len(set(draws)) == 3
