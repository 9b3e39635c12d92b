"""Contour regions."""

from __future__ import annotations

import numpy as np
import pytest

from spml_dist.data.annotations.regions import oversegment


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 40), (64, 48), (200, 150)])
def test_ids_are_16_bit_start_at_0_have_no_gaps_and_are_few_at_any_size(height, width):
    regions = oversegment(noise(1, height, width))
    assert regions.dtype == np.uint16 and regions.shape == (height, width)
    assert np.unique(regions).tolist() == list(range(regions.max() + 1))
    assert regions.max() < 400


def test_the_same_image_gives_the_same_regions():
    image = noise(2, 80, 90)
    assert np.array_equal(oversegment(image), oversegment(image.copy()))


def test_an_even_image_is_one_region():
    assert oversegment(np.full((50, 60, 3), 90, np.uint8)).max() == 0


def test_regions_end_where_the_colour_changes():
    image = np.full((60, 80, 3), 40, np.uint8)
    image[:, 40:] = (200, 60, 60)
    regions = oversegment(image)
    # The smoothing may move the edge by a pixel or two, no further.
    assert not set(np.unique(regions[:, :38])) & set(np.unique(regions[:, 42:]))
