"""Spherical k-means over rows: the centroids of an inverted file's lists, and which list a row belongs to."""

from __future__ import annotations

import numpy as np

ITERATIONS, SETTLING = 8, 2
"""of k-means; the last ones, in which no centroid starts again"""

TILE = 1 << 9
"""vectors assigned at a time: with 4,000 lists their similarities take 8 MB"""


def centroids(vectors: np.ndarray, lists: int, seed: int) -> np.ndarray:
    """[lists, C] float32: unit vectors that spherical k-means found in [n, C] float32, n ≥ lists.

    A list of few vectors starts again at a vector that is far from every centroid: clusters that share a list
    come apart, and fewer lists have to be searched for the same recall.
    """
    # K-means of the same rows in the same order gives the same bits, whichever slots the rows were in.
    chosen = np.random.default_rng(seed % (1 << 31)).permutation(len(vectors))[:lists]
    middles = vectors[chosen].astype(np.float32)
    for iteration in range(ITERATIONS):
        own = assigned(vectors, middles)
        similarity = np.einsum("nc,nc->n", vectors, middles[own])
        middles = _means(vectors, own, middles)
        # Not in the last iterations: a centroid that has just moved has no mean of its own yet.
        if iteration < ITERATIONS - SETTLING:
            few = np.flatnonzero(4 * lists * np.bincount(own, minlength=lists) < len(vectors))
            middles[few] = vectors[np.argsort(similarity, kind="stable")[: len(few)]]
    return middles


def assigned(vectors: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """[n] int64: the centroid nearest to each vector. Several times as fast as searching an index of them."""
    own = np.zeros(len(vectors), np.int64)
    tile = np.zeros((TILE, vectors.shape[1]), np.float32)
    for start in range(0, len(vectors), TILE):
        part = vectors[start : start + TILE]
        tile[: len(part)] = part  # a product of one shape: a vector's list does not depend on its company
        own[start : start + TILE] = (tile @ middles.T).argmax(axis=1)[: len(part)]
    return own


def _means(vectors: np.ndarray, own: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """[lists, C]: the directions of the lists' means; an empty list's stays."""
    order = np.argsort(own, kind="stable")
    lists, starts = np.unique(own[order], return_index=True)
    sums = np.add.reduceat(vectors[order], starts, axis=0)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    means = middles.copy()
    means[lists] = np.where(length > 0, sums / np.maximum(length, 1e-12), middles[lists])
    return means
