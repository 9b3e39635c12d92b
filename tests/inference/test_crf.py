"""The dense CRF: labels follow the image's edges; without its package the extra is named."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from spml_dist.errors import DataError, RunError
from spml_dist.inference import crf
from spml_dist.inference.pixel_labels import label
from spml_dist.inference.views import Views
from tests.inference.conftest import COLOURS, stripes, with_crf


@with_crf
def test_labels_move_to_the_edges_of_the_image():
    truth = np.repeat(np.arange(2), 24)[None].repeat(32, axis=0)
    shifted = np.roll(truth, 3, axis=1)
    shifted[:, :3] = 0
    likely = np.where(np.arange(2)[:, None, None] == shifted, 0.7, 0.3).astype(np.float32)
    refined = crf.refined(COLOURS[truth], likely)
    assert refined.shape == likely.shape and refined.dtype == np.float32
    np.testing.assert_allclose(refined.sum(axis=0), 1, rtol=1e-4)
    assert (refined.argmax(axis=0) != truth).sum() < (shifted != truth).sum() / 4


@with_crf
def test_it_is_the_packages_mean_field_with_the_published_constants():
    from pydensecrf.densecrf import DenseCRF2D

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    likely = rng.dirichlet(np.ones(3), (13, 17)).astype(np.float32).transpose(2, 0, 1)
    field = DenseCRF2D(17, 13, 3)
    field.setUnaryEnergy(np.ascontiguousarray(-np.log(likely.clip(1e-5, 1)).reshape(3, -1)))
    field.addPairwiseGaussian(sxy=1, compat=3)
    field.addPairwiseBilateral(sxy=67, srgb=3, rgbim=image, compat=4)
    expected = np.array(field.inference(10)).reshape(3, 13, 17)
    np.testing.assert_array_equal(crf.refined(image, likely), expected)


@with_crf
def test_one_class_and_certain_probabilities_are_fine():
    image = stripes(0).image
    only = np.ones((1, *image.shape[:2]), np.float32)
    np.testing.assert_array_equal(crf.refined(image, only), only)
    certain = np.stack([only[0], np.zeros_like(only[0])])
    assert (crf.refined(image, certain).argmax(axis=0) == 0).all()


@with_crf
def test_labels_are_refined_on_request(network):
    sample = stripes(1)
    (plain,), (refined,) = (label(network, [sample.image], Views(), refine=way) for way in (False, True))
    wrong = [(labels.classes != sample.mask).sum() for labels in (plain, refined)]
    assert wrong[1] < wrong[0]


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(RunError, match=r"pydensecrf is not installed .*pip install 'spml-dist\[crf\]'"):
        crf.require()


@with_crf
def test_an_image_that_is_too_large_is_named(monkeypatch):
    monkeypatch.setattr(crf, "LARGEST", 100)
    with pytest.raises(
        DataError, match=r"a.png: more than the 100 pixels that the dense CRF .*\(got 11×10\)"
    ):
        crf.require_size(np.zeros((10, 11, 3), np.uint8), "a.png")
