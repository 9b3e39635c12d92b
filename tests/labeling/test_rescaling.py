"""Class scores made comparable."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spml_dist.labeling.rescaling import rescale

SCORES = arrays(np.float64, (4, 3, 2), elements=st.floats(0, 1))
PRESENT = arrays(bool, 4)


@settings(deadline=None)
@given(SCORES, PRESENT, st.floats(0.05, 0.5))
def test_present_classes_are_divided_by_their_maximum_or_the_floor_and_others_stay(scores, present, floor):
    ours = rescale(scores, present, floor)
    for before, after, there in zip(scores, ours, present, strict=True):
        np.testing.assert_allclose(after, before / max(before.max(), floor) if there else before)


@settings(deadline=None)
@given(SCORES, PRESENT)
def test_no_score_above_one_and_each_well_voted_present_class_reaches_it(scores, present):
    ours = rescale(scores, present)
    assert ours.max() <= 1
    voted = present & (scores.max(axis=(1, 2)) >= 0.15)
    assert (ours[voted].max(axis=(1, 2)) == 1).all()


def test_a_class_with_hardly_a_vote_does_not_win():
    """0.03 of the votes against 0.6: without the floor both would reach 1."""
    scores = np.array([[[0.6, 0.5]], [[0.03, 0.0]]])
    np.testing.assert_allclose(rescale(scores, np.array([True, True]))[:, 0, 0], [1, 0.2])


def test_the_type_stays():
    assert rescale(np.ones((2, 1, 1), np.float32), np.array([True, False])).dtype == np.float32
