"""Exact search for the rows nearest to a query (the one file that imports faiss)."""

from __future__ import annotations

import numpy as np


def nearest(queries: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k' = min(k, r) rows of largest inner product: (similarity [q, k'] float32, index [q, k'] int64).

    queries: [q, C] float32; rows: [r, C] float32. Best first; equal similarities in the order of the rows,
    also where the k-th place is shared.
    """
    return search(build(rows), queries, k)


def build(rows: np.ndarray):
    """An index over rows [r, C] float32, for more searches than one; it keeps a copy of them."""
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.ascontiguousarray(rows, dtype=np.float32))
    return index


def search(index, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest`, among the rows of an index made by `build`."""
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    kept = min(k, index.ntotal)
    if len(queries) == 0 or kept == 0:
        return np.zeros((len(queries), kept), np.float32), np.zeros((len(queries), kept), np.int64)
    similarity, found = _deepening(index, queries, kept, kept + 1)
    return similarity[:, :kept], found[:, :kept]


def _deepening(index, queries: np.ndarray, kept: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Search `depth` deep, and deeper where rows as similar as the last one kept may be out of sight."""
    depth = min(depth, index.ntotal)
    similarity, found = _ordered(*index.search(queries, depth))
    if depth < index.ntotal:
        shared = np.flatnonzero(similarity[:, kept - 1] == similarity[:, -1])
        if len(shared):
            deeper = _deepening(index, queries[shared], kept, 4 * depth)
            similarity[shared, :kept], found[shared, :kept] = (part[:, :kept] for part in deeper)
    return similarity, found


def _ordered(similarity: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((found, -similarity), axis=-1)
    return np.take_along_axis(similarity, order, -1), np.take_along_axis(found, order, -1)
