"""An image seen in several ways: where its tiles lie, and the mean of what is seen."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.config import load
from spml_dist.errors import ConfigError
from spml_dist.inference import views as module
from spml_dist.inference import whole_image
from spml_dist.inference.pixel_labels import label
from spml_dist.inference.scores import scores, stripes
from spml_dist.inference.views import Views, tiles
from spml_dist.model.segmenter import build
from tests.inference.conftest import CLASSES
from tests.inference.conftest import stripes as striped

sides = st.integers(1, 90)
IMAGE = np.random.default_rng(0).integers(0, 256, (75, 61, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def segmenter():
    """A network that has learnt nothing, with the context of a real one."""
    config = load("configs/quickstart.yaml", ["model.embedding_dim=8"]).model
    return build(config, len(CLASSES), seed=0).eval()


def softmax_of(network, image, **how):
    scores = whole_image.classify(network, whole_image.embed(network, image, **how))
    return torch.from_numpy(scores).softmax(dim=0).numpy()


@settings(deadline=None)
@given(
    size=st.tuples(sides, sides),
    scales=st.lists(st.sampled_from([0.5, 0.75, 1.0, 1.5, 2.0]), min_size=1, max_size=3),
    mirror=st.booleans(),
    window=st.sampled_from([None, 16, 32]),
    overlap=st.sampled_from([0, 1 / 3, 0.5]),
)
def test_the_tiles_weights_are_one_at_every_pixel(size, scales, mirror, window, overlap):
    total = np.zeros(size)
    found = tiles(Views(tuple(scales), mirror, window, overlap), *size)
    for tile in found:
        rows, columns = tile.rows, tile.columns
        total[rows.first : rows.last, columns.first : columns.last] += np.outer(
            tile.row_share, tile.column_share
        )
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    assert [tile.rows.first for tile in found] == sorted(tile.rows.first for tile in found)


def test_windows_end_where_the_published_ones_do():
    """Their ends: linspace(crop, side, ceil((side - crop) / stride) + 1)."""
    rows = {(tile.rows.start, tile.rows.stop) for tile in tiles(Views(window=48, overlap=0.25), 150, 48)}
    ends = np.linspace(48, 150, int(np.ceil((150 - 48) / 36)) + 1).astype(int)
    assert sorted(stop for _, stop in rows) == ends.tolist()
    assert all(stop - start == 48 for start, stop in rows)


def test_one_look_is_the_softmax_of_the_whole_image(segmenter):
    np.testing.assert_array_equal(scores(segmenter, IMAGE, Views()), softmax_of(segmenter, IMAGE))
    scaled = scores(segmenter, IMAGE, Views(longer_side=40))
    np.testing.assert_array_equal(scaled, softmax_of(segmenter, IMAGE, longer_side=40))


def test_scales_and_mirrors_are_averaged(segmenter):
    expected = np.mean(
        [
            softmax_of(segmenter, IMAGE[:, ::step], scale=scale)[:, :, ::step]
            for scale, step in product((0.5, 1.5), (1, -1))
        ],
        axis=0,
    )
    seen = scores(segmenter, IMAGE, Views((0.5, 1.5), mirror=True))
    np.testing.assert_allclose(seen, expected, atol=2e-6)


def test_classes_that_change_places_in_a_mirror_do():
    """A network that tells left from right, as hands are told: by where they are."""

    class Sides(torch.nn.Module):
        normalisation = whole_image.Normalisation((0, 0, 0), (1, 1, 1))

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def embed(self, images):
            return torch.linspace(0, 1, images.shape[-1]).expand(1, 1, *images.shape[-2:])

        def classify(self, raw):
            return torch.cat([-raw, raw], dim=1)

    once = scores(Sides(), np.zeros((8, 16, 3), np.uint8), Views())
    plain = scores(Sides(), np.zeros((8, 16, 3), np.uint8), Views(mirror=True))
    swapped = scores(Sides(), np.zeros((8, 16, 3), np.uint8), Views(mirror=True, swaps=((0, 1),)))
    np.testing.assert_allclose(plain[1], (once[1] + once[1, :, ::-1]) / 2, atol=1e-6)
    np.testing.assert_allclose(swapped[1], (once[1] + once[0, :, ::-1]) / 2, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 0.7, 1.6])
def test_windows_see_what_their_part_of_the_image_shows(network, scale):
    """The colour network has no context: windows change nothing but what its pooling does at their edges."""
    image = striped(1, height=96, width=128).image
    whole = scores(network, image, Views((scale,)))
    windowed = scores(network, image, Views((scale,), window=32, overlap=0.5))
    assert windowed.shape == whole.shape
    np.testing.assert_allclose(windowed.sum(axis=0), 1, rtol=1e-5)
    assert (windowed.argmax(axis=0) == whole.argmax(axis=0)).mean() > 0.95
    assert np.abs(windowed - whole).mean() < 0.01


def test_a_window_that_covers_the_image_pads_it_as_a_crop_is_padded(segmenter):
    image = IMAGE[:45, :37]
    canvas = np.zeros((64, 64, 3), np.float32)
    mean = np.array(segmenter.normalisation.mean, np.float32)
    canvas[:] = mean
    canvas[:45, :37] = image / np.float32(255)
    with torch.inference_mode():
        images = whole_image.on_canvas(canvas, (64, 64), segmenter.normalisation)
        logits = segmenter.classify(segmenter.embed(torch.from_numpy(images)[None]))
        logits = torch.nn.functional.interpolate(logits, size=(64, 64), mode="bilinear")
    expected = logits[0, :, :45, :37].softmax(dim=0).numpy()
    np.testing.assert_allclose(scores(segmenter, image, Views(window=64)), expected, atol=1e-5)


def test_rows_come_from_top_to_bottom_and_no_more_are_kept_than_a_window_has(segmenter):
    image = np.repeat(IMAGE, 4, axis=0)
    parts = list(stripes(segmenter, [image], Views((1.0, 0.5), window=32)))
    edges = [(rows.start, rows.stop) for _, rows, _ in parts]
    assert edges[0][0] == 0 and edges[-1][1] == len(image)
    assert all(before[1] == after[0] for before, after in pairwise(edges))
    assert max(stop - start for start, stop in edges) <= 64, "a window at half size covers 64 rows"


def test_images_and_windows_share_batches_and_the_labels_are_the_same(segmenter):
    images = [IMAGE, IMAGE[::-1].copy(), IMAGE[:40]]
    how = Views((1.0, 0.5), mirror=True, window=48)
    together = list(label(segmenter, images, how, batch=4))
    for image, labels in zip(images, together, strict=True):
        (alone,) = label(segmenter, [image], how)
        assert labels.classes.shape == image.shape[:2] and labels.classes.dtype == np.uint8
        assert (labels.classes == alone.classes).mean() > 0.999
        assert np.abs(labels.confidence.astype(int) - alone.confidence).max() <= 1


def test_confidence_is_the_probability_of_the_label(segmenter):
    (labels,) = label(segmenter, [IMAGE], Views(window=32))
    probabilities = scores(segmenter, IMAGE, Views(window=32))
    np.testing.assert_array_equal(labels.classes, probabilities.argmax(axis=0))
    np.testing.assert_allclose(labels.confidence / 255, probabilities.max(axis=0), atol=0.51 / 255)


def test_an_image_too_large_to_be_seen_whole_is_taken_in_windows_of_the_training(monkeypatch):
    monkeypatch.setattr(module, "LARGEST_WHOLE", 64 * 64)
    assert len(tiles(Views(crop=32), 64, 64)) == 1
    assert {tile.canvas for tile in tiles(Views(crop=32), 64, 65)} == {(32, 32)}


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        ({"scales": ()}, "scales"),
        ({"scales": (0.0,)}, "scales"),
        ({"scales": (float("nan"),)}, "scales"),
        ({"window": 8}, "window"),
        ({"overlap": 1.0}, "overlap"),
    ],
)
def test_views_that_cannot_be_are_named(wrong, names):
    with pytest.raises(ConfigError, match=names):
        Views(**wrong)
