"""Exact search against a full sort. Small integers have exact products, so that ties are real ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.bank.search.faiss_index import build, nearest, search


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(0, 40),
    rows=st.integers(0, 300),
    width=st.integers(1, 6),
    k=st.integers(1, 30),
)
def test_nearest_is_the_head_of_a_stable_sort(seed, queries, rows, width, k):
    rng = np.random.default_rng(seed)
    q = rng.integers(-2, 3, (queries, width)).astype(np.float32)
    r = rng.integers(-2, 3, (rows, width)).astype(np.float32)
    expected = q.astype(np.int64) @ r.astype(np.int64).T
    order = np.argsort(-expected, axis=1, kind="stable")[:, :k]

    similarity, index = nearest(q, r, k)

    np.testing.assert_array_equal(index, order)
    np.testing.assert_array_equal(similarity, np.take_along_axis(expected, order, axis=1))
    assert similarity.dtype == np.float32
    assert index.dtype == np.int64


def test_among_equal_rows_the_first_win_however_many_there_are():
    rows = np.ones((5000, 3), np.float32)
    _, index = nearest(np.ones((2, 3), np.float32), rows, 4)
    assert index.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]


@pytest.mark.parametrize("queries", [1, 19, 20, 64])
def test_the_same_query_finds_the_same_rows_in_any_company(queries):
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(500, 16)).astype(np.float32)
    asked = rng.normal(size=(queries, 16)).astype(np.float32)
    index = build(rows)
    alone = [search(index, query[None], 5)[1][0].tolist() for query in asked]
    assert search(index, asked, 5)[1].tolist() == alone


def test_rows_that_are_not_contiguous_are_read_as_they_stand():
    rows = np.arange(24, dtype=np.float64).reshape(4, 6).T
    assert nearest(np.ones((1, 4)), rows, 2)[1].tolist() == [[5, 4]]
