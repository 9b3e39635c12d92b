"""Votes against a plain count of each segment's or query's labels."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.inference.neighbours import majority, precision, vote


def winner(labels) -> int:
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 5)), max_size=60))
def test_majority_is_the_commonest_label_and_the_smallest_of_equals(pixels):
    semantic, segment = np.array(pixels, dtype=np.int64).reshape(-1, 2).T
    found = majority(semantic, segment, 6, 256)
    for number in range(6):
        members = semantic[segment == number].tolist()
        assert found[number] == (winner(members) if members else -1)


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 7), st.data())
def test_vote_is_the_commonest_label_of_the_neighbours(queries, k, data):
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=9)))
    pick = st.integers(0, len(labels) - 1)
    size = queries * k
    index = np.array(data.draw(st.lists(pick, min_size=size, max_size=size))).reshape(queries, k)
    assert vote(index, labels, 4).tolist() == [winner(labels[row].tolist()) for row in index]


def test_labels_in_small_integers_do_not_overflow():
    segment = np.full(3, 299, np.uint16)
    assert majority(np.array([7, 7, 200], np.uint8), segment, 300, 256)[299] == 7


def test_precision_is_the_share_of_neighbours_with_the_true_label():
    labels = np.array([0, 1, 1])
    assert precision(np.array([[0, 1], [1, 2]]), labels, np.array([1, 1])) == 0.75
    assert precision(np.zeros((0, 2), int), labels, np.zeros(0, int)) == 0
