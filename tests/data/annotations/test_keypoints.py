"""Keypoints become heat maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spml_dist.data.annotations.keypoints import SIGMA, HeatMap, heat_labels
from spml_dist.errors import ConfigError

H, W, K = 9, 12, 5
point = st.tuples(st.integers(0, K - 1), st.integers(0, W - 1), st.integers(0, H - 1))
shares = st.sampled_from([0.0, 0.001, 0.02, 0.3, 0.5, 0.9, 1.0])


def by_definition(points: list[tuple[int, int, int]], heat: HeatMap, background: int | None) -> np.ndarray:
    """Pixel by pixel: the class of the strongest of all heat maps, the first one of equals."""
    semantic = np.full((H, W), 254, np.uint8)
    for y in range(H):
        for x in range(W):
            maps = [math.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * heat.sigma**2)) for _, cx, cy in points]
            if not maps:
                continue
            warmest = max(maps)
            assume(all(warmest in (0, 1) or not math.isclose(warmest, at) for at in (heat.low, heat.high)))
            if warmest >= heat.high:
                semantic[y, x] = points[maps.index(warmest)][0]
            elif warmest < heat.low and background is not None:
                semantic[y, x] = background
    return semantic


@given(
    points=st.lists(point, max_size=6),
    sigma=st.sampled_from([0.5, 1.0, 1.7, 3.0, 40.0]),
    between=st.tuples(shares, shares).map(sorted).filter(lambda pair: pair[1] > 0),
    background=st.sampled_from([None, 0, 3]),
)
def test_a_pixel_is_its_strongest_keypoints_background_or_unknown(points, sigma, between, background):
    heat = HeatMap(sigma, high=between[1], low=between[0])
    semantic = heat_labels(points, (H, W), heat, background)
    assert semantic.dtype == np.uint8
    assert np.array_equal(semantic, by_definition(points, heat, background))


def test_without_a_keypoint_nothing_is_known():
    assert (heat_labels([], (H, W), HeatMap(), 0) == 254).all()


def test_the_heat_is_as_wide_as_a_share_of_the_diagonal_where_nobody_chose_it():
    shape, points = (300, 400), [(1, 200, 150), (2, 60, 40)]
    chosen = heat_labels(points, shape, HeatMap(sigma=SIGMA * 500), 0)
    assert np.array_equal(heat_labels(points, shape, HeatMap(), 0), chosen)
    radius = math.sqrt(-2 * math.log(0.5)) * SIGMA * 500
    assert (chosen == 1).sum() == pytest.approx(math.pi * radius**2, rel=0.05)
    assert set(np.unique(chosen).tolist()) == {0, 1, 2, 254}


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ({"sigma": 0}, "sigma"),
        ({"sigma": -2.0}, "got -2"),
        ({"sigma": math.nan}, "sigma"),
        ({"sigma": math.inf}, "sigma"),
        ({"high": 0.1, "low": 0.2}, "low 0.2, high 0.1"),
        ({"high": 1.2}, "high 1.2"),
        ({"low": -0.1}, "low -0.1"),
        ({"high": 0.0, "low": 0.0}, "high above 0"),
        ({"high": math.nan}, "high nan"),
    ],
)
def test_numbers_that_make_no_heat_map_are_refused(values, seen):
    with pytest.raises(ConfigError, match=seen):
        HeatMap(**values)
