"""Whole images: where grid and image meet, and that padding has no say."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.inference import whole_image
from spml_dist.records import IGNORED
from tests.inference.conftest import stripes

sides = st.tuples(st.integers(1, 70), st.integers(1, 70))


def geometry_of(image, resized) -> whole_image.Geometry:
    padded = tuple(-(-side // 8) * 8 for side in resized)
    return whole_image.geometry(image, resized, padded, tuple(side // 4 for side in padded))


@settings(deadline=None)
@given(image=sides, resized=sides, seed=st.integers(0, 1000))
def test_labels_reach_the_grid_by_nearest_neighbours_and_padding_is_ignored(image, resized, seed):
    labels = np.random.default_rng(seed).integers(0, 21, image).astype(np.uint8)
    where = geometry_of(image, resized)
    rows, columns = (np.arange(out) * side // out for out, side in zip(resized, image, strict=True))
    canvas = np.full(where.padded, IGNORED, np.uint8)
    canvas[: resized[0], : resized[1]] = labels[rows][:, columns]
    np.testing.assert_array_equal(where.to_grid(labels), canvas[::4, ::4])


@settings(deadline=None)
@given(image=sides, resized=sides)
def test_every_pixel_of_the_image_is_painted_from_a_cell_inside_it(image, resized):
    where = geometry_of(image, resized)
    painted = where.to_image(where.valid)
    assert painted.shape == image
    assert painted.all()


def test_the_grid_of_an_image_at_its_own_size_is_every_fourth_pixel():
    labels = np.arange(48 * 64).reshape(48, 64) % 251
    where = geometry_of((48, 64), (48, 64))
    np.testing.assert_array_equal(where.to_grid(labels), labels[::4, ::4])
    np.testing.assert_array_equal(where.to_image(labels[::4, ::4])[::4, ::4], labels[::4, ::4])


def test_the_image_is_normalised_and_padded_with_zeros(network):
    embedded = whole_image.embed(network, np.full((5, 9, 3), 255, np.uint8))
    white = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    assert embedded.raw.shape == (1, 3, 2, 4)
    np.testing.assert_allclose(embedded.raw[0, :, 0, 0], white, rtol=1e-5)
    np.testing.assert_allclose(embedded.raw[0, :, 1, 0], white / 4, rtol=1e-5)
    np.testing.assert_allclose(embedded.unit[0, 0].norm(), 1, rtol=1e-6)
    assert embedded.geometry.valid.tolist() == [[True, True, True, False], [True, True, True, False]]


def test_the_longer_side_is_scaled_as_asked_and_scores_come_back_at_the_images_size(network):
    image = stripes(0, height=90, width=60).image
    embedded = whole_image.embed(network, image, longer_side=48)
    assert embedded.geometry.resized == (48, 32)
    assert whole_image.classify(network, embedded).shape == (3, 90, 60)
    assert embedded.geometry.to_image(whole_image.segments(embedded, (3, 3), 5)).shape == (90, 60)


def test_scores_tell_the_class_of_every_pixel_away_from_the_seams(network):
    sample = stripes(1)
    labels = whole_image.classify(network, whole_image.embed(network, sample.image)).argmax(axis=0)
    assert (labels == sample.mask).mean() > 0.9


def test_segments_leave_out_the_padding_and_do_not_depend_on_it(network):
    """The same image on a wider canvas: what is in the padding moves no centre."""
    embedded = whole_image.embed(network, stripes(0).image)
    numbers = whole_image.segments(embedded, (4, 6), 10)
    np.testing.assert_array_equal(numbers >= 0, embedded.geometry.valid)

    noise = torch.randn(embedded.unit.shape, generator=torch.Generator().manual_seed(0))
    valid = torch.from_numpy(embedded.geometry.valid)[..., None]
    other = whole_image.EmbeddedImage(
        embedded.raw, torch.where(valid, embedded.unit, noise), embedded.geometry
    )
    np.testing.assert_array_equal(whole_image.segments(other, (4, 6), 10), numbers)


def test_a_segment_has_one_colour(network):
    sample = stripes(2, height=48, width=60)
    embedded = whole_image.embed(network, sample.image)
    numbers = whole_image.segments(embedded, (4, 6), 10)
    truth = embedded.geometry.to_grid(sample.mask)
    mixed = sum(len(np.unique(truth[numbers == number])) > 1 for number in np.unique(numbers[numbers >= 0]))
    assert mixed <= 2
