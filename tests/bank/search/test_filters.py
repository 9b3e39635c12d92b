"""Who may answer whom, against one pair after another."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.bank.search.filters import Kind, Queries, passing, query_groups
from spml_dist.tensor_records import take
from tests.bank.builders import may_answer, queries_of, rows_of

KINDS = get_args(Kind)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    classes=st.sampled_from([3, 5, 64, 130]),
    images=st.integers(0, 4),
    rows=st.integers(0, 5),
)
def test_a_row_passes_for_a_group_as_it_does_for_each_of_its_queries(kind, seed, classes, images, rows):
    names = [f"q{i}" for i in range(images)], [f"r{i}" for i in range(rows)]
    asking, held = (
        rows_of(keys, [1 + i % 3 for i in range(len(keys))], seed=seed + at, classes=classes)
        for at, keys in enumerate(names)
    )
    queries = queries_of(asking)
    group, members = query_groups(kind, queries)
    passes = passing(kind, queries, members, held)
    assert passes.shape == (len(members), len(held)) and passes.dtype == torch.bool
    nobody = torch.zeros(1, len(held), dtype=torch.bool)
    by_query = torch.cat([passes, nobody])[group]  # -1: the last
    assert by_query.tolist() == may_answer(kind, queries, held, classes).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_few_and_named_by_one_of_their_own(kind):
    queries = queries_of(rows_of(["a", "b", "c", "d"], [9, 9, 9, 9], seed=2))
    group, members = query_groups(kind, queries)
    assert sorted(set(group.tolist()) - {-1}) == list(range(len(members)))
    assert group[members].tolist() == list(range(len(members)))
    most = {"any": 1, "labelled": 1, "same_class": 5, "other_class": 5, "shares_tag": 4, "shares_none": 4}
    assert 1 <= len(members) <= most[kind]
    who_asks = {"same_class": queries.label >= 0, "other_class": queries.label >= 0}
    who_asks |= {"shares_tag": queries.tags_known, "shares_none": queries.tags_known}
    assert torch.equal(group >= 0, who_asks.get(kind, torch.ones(36, dtype=torch.bool)))


def asking(tags: int, known: bool = True, label: int = -1) -> Queries:
    return Queries(
        torch.ones(1, 6),
        torch.tensor([1]),
        torch.tensor([label], dtype=torch.int16),
        torch.tensor([[tags]]),
        torch.tensor([known]),
    )


@pytest.mark.parametrize(
    ("tags", "shares", "shares_none"),
    [
        (0b001, [True, False, False, False], [False, True, True, False]),
        (0, [False] * 4, [True] * 3 + [False]),
    ],
    ids=["tagged", "known to hold nothing"],
)
def test_unknown_tags_are_neither_shared_nor_apart_and_no_tags_are_apart_from_all(tags, shares, shares_none):
    rows = take(rows_of(["a"], [4]), slice(None))
    rows.tags[:, 0] = torch.tensor([0b011, 0b110, 0, 0])
    rows.tags_known[:] = torch.tensor([True, True, True, False])
    queries = asking(tags)
    for kind, wanted in (("shares_tag", shares), ("shares_none", shares_none)):
        assert passing(kind, queries, query_groups(kind, queries)[1], rows).tolist() == [wanted]
        assert not len(query_groups(kind, asking(tags, known=False))[1])


def test_propagated_classes_answer_no_question_for_classes():
    rows = rows_of(["a"], [3])
    rows.label[:], rows.source[:] = 2, torch.tensor([0, 1, 2])
    queries = asking(0, label=2)
    for kind, wanted in (("same_class", [False, True, False]), ("labelled", [False, True, False])):
        assert passing(kind, queries, query_groups(kind, queries)[1], rows).tolist() == [wanted]
    assert not passing("other_class", queries, query_groups("other_class", queries)[1], rows).any()


def test_queries_are_as_annotated_as_they_say():
    assert asking(0, label=3).source.tolist() == [1] and asking(0).source.tolist() == [0]
