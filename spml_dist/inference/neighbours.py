"""Labels by votes: of a segment's pixels, and of a segment's nearest neighbours."""

from __future__ import annotations

import numpy as np


def majority(semantic: np.ndarray, segment: np.ndarray, count: int, num_labels: int) -> np.ndarray:
    """Most frequent label of each segment, [count] int64; ties go to the smallest label.

    semantic: [n] integers in 0..num_labels-1; segment: [n] integers in 0..count-1. A segment without any
    pixel gets -1. Every value counts as a label: drop unlabelled and ignored pixels before the call
    where they have no vote.
    """
    votes = _histogram(segment, semantic, count, num_labels)
    return np.where(votes.any(axis=1), votes.argmax(axis=1), -1)


def vote(index: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Most frequent label among each query's neighbours, [q] int64; ties go to the smallest class.

    index: [q, k] rows of `labels`, k ≥ 1; labels: [r] integers in 0..K-1 (SPML paper, section 3.5).
    """
    return tally(index, labels, num_classes).argmax(axis=1)


def tally(index: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Votes of each query's neighbours for each class, [q, K] int64; as `vote`."""
    votes = labels[index]
    query = np.repeat(np.arange(len(index)), index.shape[1])
    return _histogram(query, votes.ravel(), len(index), num_classes)


def shares(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Share of each class among each query's neighbours: [q, K] float32.

    labels: [q, k] the neighbours' classes, integers in 0..K-1, k ≥ 1.
    """
    query = np.repeat(np.arange(len(labels)), labels.shape[1])
    votes = _histogram(query, labels.ravel(), len(labels), num_classes)
    return (votes / labels.shape[1]).astype(np.float32)


def precision(index: np.ndarray, labels: np.ndarray, truth: np.ndarray) -> float:
    """Share of all neighbours that carry their query's true label; 0 without queries.

    index: [q, k] rows of `labels`; labels: [r]; truth: [q].
    """
    return float((labels[index] == truth[:, None]).mean()) if index.size else 0.0


def _histogram(row: np.ndarray, column: np.ndarray, rows: int, columns: int) -> np.ndarray:
    code = row.astype(np.int64) * columns + column
    return np.bincount(code, minlength=rows * columns).reshape(rows, columns)
