"""Augmentation: the published order of steps, on numbers that depend on seed, epoch and key alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.data.stream.augment import augment, denormalise, normalise, rng_for
from spml_dist.records import IMAGENET, Normalisation

from .conftest import make_sample

MEAN, DEVIATION = np.float32(IMAGENET.mean), np.float32(IMAGENET.deviation)


def view(sample, seed=0, crop=(32, 32), scale=(1.0, 1.0), mirror=False, swaps=()):
    rng = np.random.RandomState(seed)
    return augment(sample.image, (sample.semantic, sample.regions), rng, crop, scale, mirror, swaps)


def test_without_scale_mirror_and_crop_the_image_is_only_normalised():
    sample = make_sample(1)
    image, (semantic, regions), window = view(sample, crop=sample.image.shape[:2])
    expected = ((sample.image / 255 - MEAN) / DEVIATION).transpose(2, 0, 1)
    np.testing.assert_allclose(image, expected, atol=1e-6)
    np.testing.assert_array_equal(image, normalise(sample.image))
    np.testing.assert_array_equal(semantic, sample.semantic)
    np.testing.assert_array_equal(regions, sample.regions)
    assert window.tolist() == [0, 0, 1, 1]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 80), st.integers(1, 80)),
    st.sampled_from([(1.0, 1.0), (0.5, 1.5), (0.01, 0.02), (2.0, 2.0)]),
    st.booleans(),
)
def test_every_view_has_the_crop_s_size_and_labels_of_the_image(height, width, seed, crop, scale, mirror):
    sample = make_sample(1, height, width)
    image, (semantic, regions), window = view(sample, seed, crop, scale, mirror)
    assert image.shape == (3, *crop) and image.dtype == np.float32 and image.flags.c_contiguous
    assert semantic.shape == regions.shape == crop
    assert (semantic.dtype, regions.dtype) == (np.uint8, np.uint16)
    assert window.shape == (4,) and window.dtype == np.float32
    assert set(np.unique(semantic)) <= {*np.unique(sample.semantic), 255}
    assert set(np.unique(regions)) <= {*np.unique(sample.regions), 255}


def test_a_small_image_is_padded_at_the_bottom_and_on_the_right_and_ignored_there():
    sample = make_sample(1, 20, 30)
    image, (semantic, _), window = view(sample, crop=(32, 40))
    np.testing.assert_array_equal(semantic[:20, :30], sample.semantic)
    assert (semantic[20:] == 255).all() and (semantic[:, 30:] == 255).all()
    assert (image[:, 20:] == 0).all() and (image[:, :, 30:] == 0).all(), "the mean colour"
    np.testing.assert_array_equal(window, np.float32([0, 0, 32 / 20, 40 / 30]))


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 80), st.integers(1, 80)),
    st.sampled_from([(1.0, 1.0), (0.5, 1.5), (0.01, 0.02), (2.0, 2.0)]),
    st.booleans(),
)
def test_the_window_says_where_every_pixel_comes_from(height, width, seed, crop, scale, mirror):
    """On an image whose colours are its coordinates. Interpolation knows no colour beyond the middle of the
    outermost pixels; what lies outside the image is padding."""
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    source = np.stack(np.broadcast_arrays(y[:, None], x, 0.0), axis=-1).astype(np.float32)
    labels = (np.zeros((height, width), np.uint8),)
    rng = np.random.RandomState(seed)
    image, (semantic,), window = augment(source, labels, rng, crop, scale, mirror)
    top, left, bottom, right = window.astype(float)
    rows = top + (bottom - top) * (np.arange(crop[0]) + 0.5) / crop[0]
    columns = left + (right - left) * (np.arange(crop[1]) + 0.5) / crop[1]
    inside = ((rows > 0) & (rows < 1))[:, None] & ((columns > 0) & (columns < 1))
    np.testing.assert_array_equal(semantic == 0, inside)
    seen = image.transpose(1, 2, 0) * DEVIATION + MEAN
    expected = np.broadcast_arrays(rows.clip(y[0], y[-1])[:, None], columns.clip(x[0], x[-1]))
    for channel, share in enumerate(expected):
        np.testing.assert_allclose(seen[..., channel][inside], share[inside], atol=1e-4)
    assert top <= bottom and (left > right) == (mirror and np.random.RandomState(seed).uniform() >= 0.5)


def test_half_of_the_views_are_mirrored_image_and_labels_alike():
    sample = make_sample(1)
    size = sample.image.shape[:2]
    plain = normalise(sample.image)
    flips = 0
    for seed in range(40):
        image, (semantic, regions), window = view(sample, seed, crop=size, mirror=True)
        flipped = not np.array_equal(image, plain)
        flips += flipped
        turn = np.fliplr if flipped else np.array
        np.testing.assert_array_equal(image, np.stack([turn(channel) for channel in plain]))
        np.testing.assert_array_equal(semantic, turn(sample.semantic))
        np.testing.assert_array_equal(regions, turn(sample.regions))
        assert window.tolist() == ([0, 1, 1, 0] if flipped else [0, 0, 1, 1])
    assert 8 < flips < 32


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.permutations([0, 1, 2, 3, 253, 254, 255]), st.integers(0, 3))
def test_classes_change_places_in_mirrored_views_and_only_there(seed, classes, pairs):
    """Against the same view without swaps; the pairs are as good as any, so 254 and 255 take part too."""
    semantic = np.random.default_rng(seed).choice([0, 1, 2, 3, 254, 255], (24, 30)).astype(np.uint8)
    sample = replace(make_sample(1, 24, 30), semantic=semantic)
    swaps = tuple(zip(classes[:pairs], classes[pairs : 2 * pairs], strict=True))
    settled = {"seed": seed, "scale": (0.5, 1.5), "crop": (20, 20)}
    padding = np.full((20, 20), 255, np.uint8)
    for mirror in (False, True):
        image, (plain, regions), window = view(sample, mirror=mirror, **settled)
        other, (swapped, same), other_window = view(sample, mirror=mirror, swaps=swaps, **settled)
        np.testing.assert_array_equal(image, other)
        np.testing.assert_array_equal(regions, same)
        np.testing.assert_array_equal(window, other_window)
        flipped = mirror and np.random.RandomState(seed).uniform(0, 1) >= 0.5
        expected = plain.copy()
        for one, two in swaps if flipped else ():
            expected[plain == one], expected[plain == two] = two, one
        inside = view(replace(sample, semantic=np.zeros_like(semantic)), mirror=mirror, **settled)[1][0] == 0
        np.testing.assert_array_equal(swapped, np.where(inside, expected, padding))


def test_left_becomes_right():
    semantic = np.array([[2, 2, 0, 254, 255, 3]], np.uint8)
    sample = replace(make_sample(1, 1, 6), semantic=semantic)
    views = {
        tuple(view(sample, seed, (1, 6), mirror=True, swaps=((2, 3), (4, 5)))[1][0][0].tolist())
        for seed in range(20)
    }
    assert views == {(2, 2, 0, 254, 255, 3), (2, 255, 254, 0, 3, 3)}


def test_floats_are_taken_as_they_are():
    sample = make_sample(1)
    labels = (sample.semantic,)
    as_bytes, as_floats = (
        augment(image, labels, np.random.RandomState(3), (30, 30), (0.5, 1.5), True)[0]
        for image in (sample.image, sample.image.astype(np.float32) / np.float32(255))
    )
    np.testing.assert_array_equal(as_bytes, as_floats)


def test_random_numbers_depend_on_seed_epoch_and_key_alone():
    first = [rng_for(1, 2, "key").uniform() for _ in range(2)]
    assert first[0] == first[1] == 0.8975365291860495, "saved runs resume with these numbers"
    others = [rng_for(2, 2, "key"), rng_for(1, 3, "key"), rng_for(1, 2, "kez"), rng_for(12, 2, "key")]
    assert len({rng.uniform() for rng in others} | {first[0]}) == 5


def test_a_network_has_a_mean_and_deviation_of_its_own():
    """With them the image is whole again, and the padding is 0, as the network was trained to see it."""
    own = Normalisation((0.25, 0.5, 0.75), (0.5, 0.25, 0.125))
    sample, labels = make_sample(1), ()
    height, width = sample.image.shape[:2]
    crop = (height + 4, width + 2)
    image, _, _ = augment(
        sample.image, labels, np.random.RandomState(0), crop, (1.0, 1.0), False, normalisation=own
    )
    inside = image[:, :height, :width].transpose(1, 2, 0) * own.deviation + own.mean
    np.testing.assert_allclose(inside, sample.image / 255, atol=1e-6)
    assert (image[:, height:] == 0).all() and (image[:, :, width:] == 0).all()
    np.testing.assert_allclose(denormalise(normalise(sample.image, own), own), sample.image / 255, atol=1e-6)


def coloured(seed=0, image=None, **probabilities):
    """A view of an image of its own size, [H, W, 3] in [0, 1], and the labels."""
    sample = make_sample(1)
    image = sample.image if image is None else image
    rng, size = np.random.RandomState(seed), image.shape[:2]
    labels = (np.zeros(size, np.uint8),)
    pixels, labels, _ = augment(image, labels, rng, size, (1.0, 1.0), False, **probabilities)
    return denormalise(pixels), labels


def test_a_grey_view_has_no_colours_and_is_as_bright():
    image = make_sample(1).image
    pixels, _ = coloured(grey=1.0)
    expected = image / 255 @ np.array([0.3, 0.59, 0.11])
    np.testing.assert_allclose(pixels, np.repeat(expected[..., None], 3, axis=-1), atol=1e-5)


def test_a_blurred_view_is_the_image_under_a_kernel_of_five_pixels_whose_width_is_drawn():
    point = np.zeros((9, 9, 3), np.float32)
    point[4, 4] = 1
    *_, width = np.random.RandomState(3).uniform(size=7)
    sigma = 0.1 + 4.9 * width
    offsets = np.arange(-2, 3)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets**2) / sigma**2)
    expected = np.zeros((9, 9))
    expected[2:7, 2:7] = kernel / kernel.sum()
    pixels, _ = coloured(3, point, blur=1.0)
    np.testing.assert_allclose(pixels, np.repeat(expected[..., None], 3, axis=-1), atol=1e-6)


def test_probabilities_are_those_of_the_views_and_labels_stay():
    image = make_sample(1).image / np.float32(255)
    views = [coloured(seed, grey=0.3, blur=0.5) for seed in range(200)]
    grey = sum(np.ptp(pixels, axis=-1).max() < 1e-5 for pixels, _ in views)
    plain = sum(np.abs(pixels - image).max() < 1e-5 for pixels, _ in views)
    assert 40 < grey < 80 and 50 < plain < 90
    assert all(not labels[0].any() for _, labels in views)


def test_a_probability_leaves_what_else_is_drawn_as_it_was():
    sample = make_sample(1)
    plain, grey = (
        augment(
            sample.image, (sample.semantic,), np.random.RandomState(5), (20, 20), (0.5, 1.5), True, **given
        )
        for given in ({}, {"grey": 1.0, "blur": 1.0})
    )
    np.testing.assert_array_equal(plain[1][0], grey[1][0])
    np.testing.assert_array_equal(plain[2], grey[2])
    assert not np.array_equal(plain[0], grey[0])
