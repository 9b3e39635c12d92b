"""Points become discs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spml_dist.data.annotations.points import checked_points, discs
from spml_dist.errors import DataError

H, W, K = 9, 12, 5
point = st.tuples(st.integers(0, K - 1), st.integers(0, W - 1), st.integers(0, H - 1)).map(list)


def by_definition(points: list[list[int]], radius: float) -> np.ndarray:
    """Pixel by pixel: the class of the nearest point within the radius, the first one of equals."""
    semantic = np.full((H, W), 254, np.uint8)
    for y in range(H):
        for x in range(W):
            near = [
                ((x - cx) ** 2 + (y - cy) ** 2, place, label) for place, (label, cx, cy) in enumerate(points)
            ]
            near = [entry for entry in near if entry[0] <= radius**2]
            if near:
                semantic[y, x] = min(near)[2]
    return semantic


@given(points=st.lists(point, max_size=8), radius=st.sampled_from([0, 1, 1.5, 2, 3, 50]))
def test_a_pixel_takes_the_class_of_the_nearest_point_in_reach(points, radius):
    assert np.array_equal(discs(points, (H, W), radius, K, "points.json"), by_definition(points, radius))


def test_radius_zero_labels_the_point_alone():
    semantic = discs([[3, 4, 2]], (H, W), 0, K, "points.json")
    assert semantic.dtype == np.uint8
    assert np.argwhere(semantic != 254).tolist() == [[2, 4]] and semantic[2, 4] == 3


def test_whole_numbers_may_be_written_as_fractions():
    assert np.array_equal(discs([[1, 2.0, 1]], (H, W), 0, K, "p"), discs([[1, 2, 1]], (H, W), 0, K, "p"))


def test_fractions_are_moved_to_the_nearest_pixel_and_onto_the_border():
    points = [[1, 2.4, 3.6], [2, W + 0.00000003, -1e-14], [3, -0.9, H + 0.9]]
    assert checked_points(points, (H, W), K, "p") == [(1, 2, 4), (2, W - 1, 0), (3, 0, H - 1)]


def test_of_two_points_on_one_pixel_the_earlier_wins():
    assert discs([[1, 4, 4], [2, 4, 4]], (H, W), 0, K, "points.json")[4, 4] == 1


@pytest.mark.parametrize(
    ("points", "seen"),
    [
        ({"1": [0, 1, 1]}, "not a list"),
        ([[0, 1]], "not a point"),
        ([[0, 1, 1, 1]], "not a point"),
        ([[0, "1", 1]], "not a point"),
        ([[0, math.nan, 1]], "not a point"),
        ([[0, W + 1.0, 0]], f"x {W + 1.0}, y 0"),
        ([[0, -1.0, 0]], "x -1.0"),
        ([[0, 0.5, 0.25], [1, 1, 0.1]], "points are shares of the image (0..1), not pixels"),
        ([[True, 1, 1]], "not a point"),
        ([[0, math.inf, 1]], "not a point"),
        ([[0, 10**400, 1]], "outside the image"),
        (["012"], "not a point"),
        ([[K, 1, 1]], f"got {K}"),
        ([[-1, 1, 1]], "got -1"),
        ([[0, W, 0]], f"x {W}, y 0"),
        ([[0, 0, H]], f"x 0, y {H}"),
        ([[0, -1, 0]], "x -1"),
    ],
)
def test_anything_but_points_inside_the_image_is_refused_by_name(points, seen):
    with pytest.raises(DataError, match=r"points\.json, image 7") as raised:
        discs(points, (H, W), 3, K, "points.json, image 7")
    assert seen in str(raised.value)
