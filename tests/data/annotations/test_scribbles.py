"""Scribbles drawn and shortened."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spml_dist.data.annotations.scribbles import draw_strokes, shorten_stroke

STROKES = arrays(np.float64, st.tuples(st.integers(1, 8), st.just(2)), elements=st.integers(0, 60).map(float))


def length(points: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


@given(STROKES, st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]))
def test_a_shortened_stroke_has_its_share_of_the_length(points, share):
    assert length(shorten_stroke(points, share)) == pytest.approx(share * length(points), abs=1e-6)


@given(STROKES)
def test_nothing_left_of_a_stroke_is_one_point_halfway_along(points):
    (middle,) = shorten_stroke(points, 0)
    half = shorten_stroke(points[::-1], 0)[0]
    assert middle == pytest.approx(half, abs=1e-6)
    assert (points.min(axis=0) - 1e-9 <= middle).all() and (middle <= points.max(axis=0) + 1e-9).all()


def test_corners_within_the_kept_part_stay():
    bent = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]])
    assert shorten_stroke(bent, 0.5).tolist() == [[5, 0], [10, 0], [10, 5]]


def test_strokes_are_three_pixels_wide_and_later_ones_lie_above():
    across, down = np.array([[2.0, 10.0], [28.0, 10.0]]), np.array([[15.0, 2.0], [15.0, 18.0]])
    semantic = draw_strokes([(0, across), (7, down)], (20, 30))
    assert semantic.dtype == np.uint8 and (semantic[10, 14:17] == 7).all()
    assert (semantic == 7).sum() == 3 * 19 and (semantic == 0).sum() == 3 * 29 - 9
    assert ((semantic == 0) | (semantic == 7) | (semantic == 254)).all()


def test_a_stroke_of_one_point_is_a_dot():
    assert (draw_strokes([(4, np.array([[5.0, 6.0]]))], (20, 30)) == 4).sum() == 9
