"""RowCounts of rows that attract and repel, against a count of pairs."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.bank.counts import count, sum_over_ranks
from spml_dist.bank.search.filters import Queries
from spml_dist.records import BankRows
from tests.bank.builders import CLASSES, may_answer, queries_of, rows_of

COUNTED = ("rows", "by_class", "by_propagated", "sharing", "apart")


def slowly(rows: BankRows, eligible: torch.Tensor, queries: Queries) -> dict[str, list[int]]:
    which = eligible.tolist()
    labels = [int(k) for k, e in zip(rows.label, which, strict=True) if e]
    sources = [int(k) for k, e in zip(rows.source, which, strict=True) if e]
    pairs = list(zip(labels, sources, strict=True))
    sharing, apart = (
        (may_answer(kind, queries, rows) & eligible.numpy()).sum(axis=1).tolist()
        for kind in ("shares_tag", "shares_none")
    )
    return {
        "rows": [sum(which)],
        "by_class": [pairs.count((k, 1)) for k in range(CLASSES)],
        "by_propagated": [labels.count(k) for k in range(CLASSES)],
        "sharing": sharing,
        "apart": apart,
    }


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    held=st.lists(st.integers(1, 6), max_size=6),
    asked=st.lists(st.integers(1, 6), max_size=4),
)
def test_counts_are_those_of_pairs(seed, held, asked):
    rows = rows_of([f"r{i}" for i in range(len(held))], held, seed=seed)
    queries = queries_of(rows_of([f"q{i}" for i in range(len(asked))], asked, seed=seed + 1))
    eligible = torch.rand(len(rows), generator=torch.Generator().manual_seed(seed)) < 0.7
    ours = sum_over_ranks(count(rows, eligible, queries, CLASSES))
    expected = slowly(rows, eligible, queries)
    for name in COUNTED:
        value = getattr(ours, name)
        assert value.dtype == torch.int64 and value.tolist() == expected[name], name


def test_parts_of_the_rows_add_up():
    rows, queries = rows_of(["a", "b", "c"], [5, 6, 7]), queries_of(rows_of(["q", "p"], [3, 4], seed=2))
    first = torch.arange(len(rows)) < 8
    parts = [count(rows, which, queries, CLASSES) for which in (first, ~first)]
    whole = count(rows, first | ~first, queries, CLASSES)
    for name in COUNTED:
        assert torch.equal(getattr(parts[0], name) + getattr(parts[1], name), getattr(whole, name))
    assert whole.rows.tolist() == [18] and whole.sharing.any() and whole.apart.any()


def test_a_query_s_own_image_counts_like_any_other():
    """Who is eligible is decided elsewhere; older copies of a segment may stand for it."""
    rows = rows_of(["a"], [4])
    rows.tags[:], rows.tags_known[:] = 1, True
    assert count(rows, rows.tags_known, queries_of(rows), CLASSES).sharing.tolist() == [4] * 4
