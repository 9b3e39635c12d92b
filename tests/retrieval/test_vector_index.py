"""Kinds of FAISS index: by size, measured, mapped, the same in every kind."""

from __future__ import annotations

import numpy as np
import pytest

from spml_dist.retrieval import vector_index


def clustered(rows: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    middles = np.random.default_rng(99).normal(size=(40, dim))
    random = np.random.default_rng(seed)
    vectors = middles[random.integers(0, 40, rows)] + 0.4 * random.normal(size=(rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize(
    ("rows", "kind"), [(1, "exact"), (60_000, "ivf"), (1_000_000, "ivf-sq"), (10**8, "ivf-pq")]
)
def test_the_kind_is_chosen_by_the_number_of_rows(rows, kind):
    assert vector_index.kind_for(rows) == kind


@pytest.mark.parametrize("kind", vector_index.KINDS)
def test_every_kind_finds_what_a_comparison_of_all_rows_finds(kind, tmp_path):
    vectors = clustered(6000)
    built = vector_index.build(vectors, tmp_path / "image.index", kind)
    assert built.kind == kind and built.recall >= (0.9 if kind == "ivf-pq" else 0.98)
    index = vector_index.open_mapped(tmp_path / "image.index", kind)
    queries = clustered(50, seed=1).astype(np.float32)
    truth = vector_index.exact(vectors, queries, 20)
    found = vector_index.candidates(index, queries, 80, built.probes)
    best = [vector_index.ordered(vectors, *pair, 20)[1] for pair in zip(queries, found, strict=True)]
    assert np.mean([len(np.intersect1d(*pair)) for pair in zip(best, truth, strict=True)]) / 20 >= (
        0.9 if kind == "ivf-pq" else 0.98
    )


@pytest.mark.parametrize("kind", vector_index.KINDS)
def test_rows_that_are_not_allowed_never_answer(kind, tmp_path):
    vectors = clustered(3000)
    built = vector_index.build(vectors, tmp_path / "image.index", kind)
    index = vector_index.open_mapped(tmp_path / "image.index", kind)
    allowed = np.arange(3000) % 7 == 3
    found = vector_index.candidates(
        index, vectors[:5].astype(np.float32), 30, built.probes, np.packbits(allowed, bitorder="little")
    )
    assert allowed[found[found >= 0]].all() and (found >= 0).any()


def test_the_same_rows_give_the_same_bytes(tmp_path):
    vectors = clustered(3000)
    for name in "ab":
        vector_index.build(vectors, tmp_path / name, "ivf-sq")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_exact_search_is_in_the_order_of_similarity_then_row():
    vectors = np.eye(4, dtype=np.float16)[[0, 1, 0, 2, 0]]
    assert vector_index.exact(vectors, np.eye(4, dtype=np.float32)[:1], 3).tolist() == [[0, 2, 4]]
