"""Ages, drift, purity and coverage, by hand and against slow counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.bank.counts import RowCounts, count
from spml_dist.bank.drift import drift
from spml_dist.bank.rows import bitset, from_bitset
from spml_dist.bank.search.filters import Queries
from spml_dist.bank.statistics import ages, coverage, purity, summed
from spml_dist.records import BankRows, Neighbours
from spml_dist.tensor_records import take
from tests.bank.builders import CLASSES, queries_of, rows_of


def boxed(boxes: list[list[float]], vectors: list[list[float]]) -> BankRows:
    rows = rows_of(["a"], [len(boxes)], dim=2)
    return replace(rows, box=torch.tensor(boxes).view(-1, 4).half(), vector=torch.tensor(vectors).view(-1, 2))


class TestDrift:
    OLD = boxed([[0, 0, 0.5, 0.5], [0, 0.5, 0.5, 1], [0.5, 0, 1, 1]], [[1, 0], [0, 1], [-1, 0]])

    def test_a_segment_is_compared_with_what_was_in_its_place(self):
        new = boxed([[0.5, 0, 1, 1], [0, 0, 0.5, 0.5]], [[1, 0], [0.6, 0.8]])
        assert drift(self.OLD, new) == pytest.approx([-1.0, 0.6])

    def test_half_of_what_both_cover_is_enough_and_less_is_not(self):
        """A box of the old one's half overlaps it by 0.5; one that is shifted by half, by a third."""
        half, shifted = [0, 0, 0.25, 0.5], [0.0, 0.25, 0.5, 0.75]
        assert drift(self.OLD, boxed([half], [[0, 1]])) == [0.0]
        assert drift(take(self.OLD, slice(0, 1)), boxed([shifted], [[0, 1]])) == []

    def test_without_segments_nothing_is_seen(self):
        nothing = take(self.OLD, slice(0, 0))
        assert drift(nothing, self.OLD) == drift(self.OLD, nothing) == drift(nothing, nothing) == []

    def test_boxes_without_an_extent_match_nothing(self):
        point = boxed([[0.25, 0.25, 0.25, 0.25]], [[1, 0]])
        assert drift(point, point) == drift(self.OLD, point) == []

    @pytest.mark.parametrize("storage", ["float16", "bfloat16"])
    def test_half_precision_is_compared_in_full(self, storage):
        rows = rows_of(["a"], [5], storage=storage, dim=64)
        assert len(drift(rows, rows)) >= 3 and drift(rows, rows) == pytest.approx([1.0] * 5, abs=0.01)


def labelled(labels: list[list[int]]) -> Neighbours:
    """Neighbours of these classes; -1: no row."""
    label = torch.tensor(labels, dtype=torch.int16)
    segment = torch.where(label >= 0, 0, -1).int()
    return Neighbours(torch.zeros(label.shape), torch.zeros_like(label).long(), segment, label)


def asking(labels: list[int]) -> Queries:
    n = len(labels)
    label = torch.tensor(labels, dtype=torch.int16)
    known = torch.ones(n, dtype=torch.bool)
    return Queries(torch.zeros(n, 2), torch.zeros(n).long(), label, torch.zeros(n, 1).long(), known)


def test_purity_counts_the_neighbours_of_annotated_segments():
    near = labelled([[1, 1, 2], [0, -1, -1], [3, 3, 3]])
    assert purity(asking([1, 0, -1]), near) == {"purity": pytest.approx(3 / 4)}
    assert purity(asking([-1, -1, -1]), near) == {}
    assert purity(asking([1]), labelled([[-1, -1]])) == {}


class TestCoverage:
    @settings(deadline=None, max_examples=40)
    @given(seed=st.integers(0, 2**31), held=st.lists(st.integers(1, 3), max_size=4), asked=st.integers(1, 3))
    def test_it_is_the_share_of_segments_with_a_positive_beside_themselves_and_a_negative(
        self, seed, held, asked
    ):
        queries = queries_of(rows_of([f"q{i}" for i in range(asked)], [2] * asked, seed=seed))
        rows = rows_of([f"r{i}" for i in range(len(held))], held, seed=seed + 1)
        newer = torch.arange(len(rows)) < len(rows) // 2
        everything, everybody = torch.ones(len(rows), dtype=torch.bool), queries.tags_known | True
        parts = {
            "step": count(queries, everybody, queries, CLASSES),
            "recent": count(rows, newer, queries, CLASSES),
            "bank": count(rows, everything, queries, CLASSES),
        }
        seen = coverage(queries, *parts.values())
        among = {"step": rows.image[:0], "recent": take(rows, newer), "bank": rows}
        assert seen == pytest.approx(
            slow_coverage(
                queries, {"step": take(rows, slice(0, 0)), **{k: among[k] for k in ("recent", "bank")}}
            )
        )

    def test_more_rows_cover_no_less(self):
        queries = queries_of(rows_of(["a", "b", "c"], [2, 1, 2], seed=12))
        rows = rows_of([f"r{i}" for i in range(20)], [4] * 20, seed=4)
        every = torch.ones(len(rows), dtype=torch.bool)
        none, few, all_of_them = (
            count(rows, which, queries, CLASSES) for which in (~every, every & (rows.position < 2), every)
        )
        ours = count(queries, torch.ones_like(queries.tags_known), queries, CLASSES)
        seen = coverage(queries, ours, few, all_of_them)
        for name in ("annotation", "cooccurrence"):
            step, recent, bank = (seen[f"coverage_{name}/{which}"] for which in ("step", "recent", "bank"))
            assert step < recent < bank
        assert (
            coverage(queries, ours, none, none)["coverage_annotation/bank"]
            == seen["coverage_annotation/step"]
        )

    def test_without_anybody_to_cover_there_is_no_share(self):
        queries = replace(asking([-1, -1]), tags_known=torch.zeros(2, dtype=torch.bool))
        nothing = RowCounts(*(torch.zeros(n, dtype=torch.int64) for n in (1, CLASSES, CLASSES, 2, 2)))
        assert coverage(queries, nothing, nothing, nothing) == {}


def slow_coverage(queries: Queries, remembered: dict[str, BankRows]) -> dict[str, float]:
    """Segment by segment, among the step's own segments and the remembered ones."""
    tags = from_bitset(queries.tags, CLASSES).tolist()
    own = [
        (int(k), bool(known), {c for c, on in enumerate(some) if on})
        for k, known, some in zip(queries.label, queries.tags_known, tags, strict=True)
    ]
    shares = {}
    for name, rows in remembered.items():
        labels = torch.where(rows.source == 1, rows.label, -1).tolist()
        theirs = [
            (k, bool(known), {c for c, on in enumerate(some) if on})
            for k, known, some in zip(
                labels, rows.tags_known, from_bitset(rows.tags, CLASSES).tolist(), strict=True
            )
        ]
        by_class, by_tags = [], []
        for i, (label, known, mine) in enumerate(own):
            others = own[:i] + own[i + 1 :] + theirs
            if label >= 0:
                positive = any(k == label for k, _, _ in others)
                by_class.append(positive and any(k not in (-1, label) for k, _, _ in others))
            if known:
                positive = any(theirs_known and mine & some for _, theirs_known, some in others)
                by_tags.append(
                    positive and any(theirs_known and not mine & some for _, theirs_known, some in others)
                )
        for relation, covered in (("annotation", by_class), ("cooccurrence", by_tags)):
            if covered:
                shares[f"coverage_{relation}/{name}"] = sum(covered) / len(covered)
    return shares


def test_ages_are_shares_of_the_rows_between_bounds():
    step = torch.tensor([99, 91, 90, 0, 0], dtype=torch.int32)
    assert ages(step, 100) == pytest.approx(
        {
            "rows": 5,
            "age_mean": (1 + 9 + 10 + 100 + 100) / 5,
            "age_share/below_10": 0.4,
            "age_share/below_100": 0.2,
            "age_share/below_1000": 0.4,
            "age_share/below_10000": 0.0,
            "age_share/older": 0.0,
        }
    )
    assert ages(torch.tensor([0], dtype=torch.int32), 10_000)["age_share/older"] == 1
    assert ages(step[:0], 100) == {"rows": 0}


def test_what_nobody_saw_is_not_said():
    cpu = torch.device("cpu")
    assert summed([], {}, ["any", "labelled"], cpu) == {}
    seen = summed([0.5, 1.0], {"any": (3, 4), "other_class": (1, 1)}, ["any", "labelled"], cpu)
    assert seen == {"drift_cosine": 0.75, "recall/any": 0.75}


def test_tags_that_do_not_count_cover_nothing():
    """An image whose tags are all ignored shares none with anybody, itself included."""
    queries = replace(asking([-1]), tags=bitset(torch.zeros(1, CLASSES, dtype=torch.bool)))
    ours = count(queries, torch.tensor([True]), queries, CLASSES)
    assert coverage(queries, ours, ours, ours)["coverage_cooccurrence/bank"] == 0
