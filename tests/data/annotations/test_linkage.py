"""Merging the weakest boundary first."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spml_dist.data.annotations.linkage import Boundaries, merge_weakest_first


@st.composite
def region_graphs(draw):
    """Areas, colours, and boundaries of a connected graph without loops or doubles."""
    count = draw(st.integers(1, 9))
    areas = draw(st.lists(st.integers(1, 50), min_size=count, max_size=count))
    edges = {(draw(st.integers(0, node - 1)), node) for node in range(1, count)}
    edges |= {(a, b) for a in range(count) for b in range(a + 1, count) if draw(st.integers(0, 3)) == 0}
    first, second = np.array(sorted(edges), np.int64).reshape(-1, 2).T
    parts = st.integers(0, 1 << 16).map(lambda number: number / (1 << 16))
    strength = draw(st.lists(parts, min_size=len(edges), max_size=len(edges)))
    length = draw(st.lists(st.integers(1, 9), min_size=len(edges), max_size=len(edges)))
    colours = draw(arrays(np.float64, (count, 3), elements=st.integers(-100, 100).map(float)))
    return (
        np.array(areas),
        colours,
        Boundaries(first, second, np.array(strength, float), np.array(length, float)),
    )


def slowly(areas, colours, boundaries):
    """Levels by looking at all pairs of regions before each merge, and the partition after each."""
    regions, levels, partitions = [{i} for i in range(len(areas))], [], []
    columns = (boundaries.first, boundaries.second, boundaries.strength, boundaries.length)
    edges = list(zip(*(column.tolist() for column in columns), strict=True))

    def level(one, other):
        between = [(s, n) for a, b, s, n in edges if (a in one and b in other) or (b in one and a in other)]
        if not between:
            return np.inf
        members = [list(part) for part in (one, other)]
        share = [areas[part].sum() / areas.sum() for part in members]
        colour = [np.average(colours[part], axis=0, weights=areas[part]) for part in members]
        contrast = min(1, np.linalg.norm(colour[0] - colour[1]) / 100)
        mean = sum(s * n for s, n in between) / sum(n for _, n in between)
        return (mean + contrast) / 2 * (4 * share[0] * share[1] / sum(share)) ** 0.4

    while len(regions) > 1:
        pairs = [(level(a, b), i, j) for j, b in enumerate(regions) for i, a in enumerate(regions[:j])]
        lowest, i, j = min(pairs)
        levels.append(max([lowest, *levels]))
        regions = [part for k, part in enumerate(regions) if k not in (i, j)] + [regions[i] | regions[j]]
        partitions.append({frozenset(part) for part in regions})
    return levels, partitions


@settings(deadline=None)
@given(region_graphs())
def test_levels_are_those_of_comparing_all_pairs_before_each_merge(graph):
    levels, partitions = slowly(*graph)
    merges = merge_weakest_first(*graph)
    np.testing.assert_allclose(merges.levels, levels, rtol=1e-9, atol=1e-12)
    candidates = [level for level in levels if level > 0]
    if len(set(np.round(candidates, 9))) == len(levels):  # without ties the order is one
        for done, partition in enumerate(partitions, start=1):
            labels = merges.labels_after(done)
            found = {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}
            assert found == partition


@settings(deadline=None)
@given(region_graphs())
def test_labels_start_at_0_have_no_gaps_and_get_one_fewer_at_each_merge(graph):
    merges = merge_weakest_first(*graph)
    for done in range(len(graph[0])):
        assert np.unique(merges.labels_after(done)).tolist() == list(range(len(graph[0]) - done))


def test_every_region_but_the_last_has_a_later_parent():
    boundaries = Boundaries(np.array([0, 1, 2]), np.array([1, 2, 3]), np.array([0.5, 0.1, 0.9]), np.ones(3))
    merges = merge_weakest_first(np.array([4, 4, 4, 4]), np.zeros((4, 3)), boundaries)
    assert merges.pairs[0].tolist() == [1, 2]
    parents = merges.parents()
    assert (parents[:-1] > np.arange(6)).all() and parents[-1] == 6


def test_of_two_equal_boundaries_the_smaller_region_goes_first():
    boundaries = Boundaries(np.array([0, 1]), np.array([1, 2]), np.array([0.5, 0.5]), np.ones(2))
    merges = merge_weakest_first(np.array([40, 40, 2]), np.zeros((3, 3)), boundaries)
    assert merges.pairs[0].tolist() == [1, 2]


def test_of_two_equal_boundaries_the_one_between_like_colours_goes_first():
    boundaries = Boundaries(np.array([0, 1]), np.array([1, 2]), np.array([0.5, 0.5]), np.ones(2))
    colours = np.array([[50, 0, 0], [50, 30, 0], [50, 29, 0]])
    assert merge_weakest_first(np.array([9, 9, 9]), colours, boundaries).pairs[0].tolist() == [1, 2]
