"""Hierarchies of regions between contours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.data.annotations.contours import Contours, contours
from spml_dist.data.annotations.linkage import Merges
from spml_dist.data.annotations.ucm import Hierarchy, contour_map, cut_at, cut_to, hierarchy
from spml_dist.errors import DataError


def blobs(seed: int, height: int, width: int) -> np.ndarray:
    """Random colours, blurred: contours of all strengths."""
    noise = np.random.default_rng(seed).normal(128, 400, (height, width, 3))
    return np.clip(cv2.GaussianBlur(noise, (0, 0), 3), 0, 255).astype(np.uint8).reshape(height, width, 3)


def of(image: np.ndarray) -> Hierarchy:
    return hierarchy(contours(image), image)


IMAGES = {
    "colours": blobs(0, 60, 80),
    "grey": np.repeat(blobs(1, 50, 70)[..., :1], 3, axis=2),
    "row": blobs(2, 1, 40),
    "column": blobs(3, 30, 1),
    "pixel": blobs(4, 1, 1),
    "two": blobs(5, 2, 2),
    "even": np.full((40, 30, 3), 77, np.uint8),
}


@pytest.fixture(params=IMAGES, scope="module")
def nested(request) -> Hierarchy:
    return of(IMAGES[request.param])


def connected(regions: np.ndarray) -> bool:
    return all(
        cv2.connectedComponents((regions == label).astype(np.uint8), connectivity=4)[0] == 2
        for label in np.unique(regions)
    )


@pytest.mark.parametrize("count", [1, 2, 7, 25, 10**6])
def test_a_count_is_met_exactly_as_far_as_there_are_basins(nested, count):
    regions = cut_to(nested, count)
    basins = nested.basins.max() + 1
    assert regions.shape == nested.basins.shape and regions.dtype == np.uint16
    assert np.unique(regions).tolist() == list(range(min(count, basins)))
    assert connected(regions)


def test_a_higher_level_merges_only(nested):
    finer = None
    for level in np.linspace(0, 1, 12):
        coarser = cut_at(nested, level)
        assert coarser.dtype == np.uint16
        if finer is not None:
            pairs = np.unique(np.stack([finer.ravel(), coarser.ravel()]), axis=1)
            assert len(pairs.T) == finer.max() + 1  # each finer region lies in one coarser region
        finer = coarser
    assert finer.max() == 0


def test_levels_lie_in_0_to_1_and_never_fall(nested):
    levels = nested.merges.levels
    assert len(levels) == nested.basins.max() and (np.diff(levels) >= 0).all()
    assert not len(levels) or (levels[0] >= 0 and levels[-1] <= 1)


def test_the_contour_map_below_a_threshold_is_the_cut_at_that_level(nested):
    height, width = nested.basins.shape
    drawn = contour_map(nested)
    assert drawn.shape == (2 * height - 1, 2 * width - 1) and drawn.dtype == np.uint16
    for level in (0.02, 0.05, 0.2):
        _, areas = cv2.connectedComponents((drawn <= level * 65535).astype(np.uint8), connectivity=4)
        regions = cut_at(nested, level)
        pairs = np.unique(np.stack([areas[::2, ::2].ravel(), regions.ravel()]), axis=1)
        assert len(pairs.T) == regions.max() + 1 == len(np.unique(areas[::2, ::2]))


@pytest.mark.parametrize("name", IMAGES)
def test_the_same_image_gives_the_same_regions(name):
    one, two = (of(IMAGES[name].copy()) for _ in range(2))
    assert np.array_equal(cut_to(one, 20), cut_to(two, 20))
    assert np.array_equal(contour_map(one), contour_map(two))


def test_an_even_image_is_one_region():
    assert of(IMAGES["even"]).basins.max() == 0


def test_coarse_regions_are_the_shapes_of_the_image():
    image = np.full((60, 90, 3), 60, np.uint8)
    image[:, 30:60] = (150, 60, 60)
    image[20:40, 70:85] = (60, 60, 200)
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    regions = cut_to(of(noisy), 4)
    truth = np.unique(image.reshape(-1, 3), axis=0, return_inverse=True)[1].reshape(60, 90)
    truth[:, 60:] += 3  # the two sides of the middle are two regions of one colour
    for label in np.unique(truth):
        inside = cv2.erode((truth == label).astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0) > 0
        assert len(np.unique(regions[inside])) == 1


def test_a_contour_that_does_not_run_along_a_boundary_counts_less():
    strength = np.full((20, 40), 0.01, np.float32)
    strength[:, 20] = 0.9
    even = np.zeros((20, 40, 3), np.uint8)
    along, athwart = (
        hierarchy(Contours(strength, np.full_like(strength, angle)), even).merges.levels[-1]
        for angle in (0, np.pi / 2)
    )
    assert along > 4 * athwart


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(1, 25), st.integers(1, 60))
def test_any_strengths_are_partitioned(seed, height, width, count):
    random = np.random.default_rng(seed)
    found = Contours(
        random.random((height, width), np.float32), random.random((height, width), np.float32) * 3.14
    )
    regions = cut_to(hierarchy(found, blobs(seed, height, width)), count)
    assert np.unique(regions).tolist() == list(range(regions.max() + 1)) and connected(regions)


def test_more_than_65535_regions_are_an_error():
    basins = 65536
    pairs = np.stack([np.r_[0, np.arange(basins, 2 * basins - 2)], np.arange(1, basins)], axis=1)
    nested = Hierarchy(np.arange(basins).reshape(256, 256), Merges(pairs, np.linspace(0.1, 1, basins - 1)))
    with pytest.raises(DataError, match=r"16-bit ids.*65536"):
        cut_at(nested, 0)
    with pytest.raises(DataError, match="65536"):
        cut_to(nested, 70000)
    assert cut_to(nested, 65535).max() == 65534
