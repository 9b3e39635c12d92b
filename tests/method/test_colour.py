"""Smoothed colours beside embedding and coordinates."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import interpolate

from spml_dist.method.colour import colours, smoothing

KERNELS = ("cone", "gaussian")


@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_are_symmetric_and_add_up_to_one(kernel):
    weights = smoothing(kernel)
    assert weights.shape == (5, 5) and float(weights.sum()) == pytest.approx(1)
    assert torch.equal(weights, weights.T) and torch.equal(weights, weights.flip(0))


def test_the_released_cone_stands_on_its_tip_and_a_gaussian_does_not():
    cone, gaussian = smoothing("cone"), smoothing("gaussian")
    assert cone[2, 2] == 0 and cone.argmin() == 12 and cone[0, 0] == cone.max()
    assert float(cone[0, 2] / cone[2, 3]) == pytest.approx(2)
    assert float(cone[0, 0] / cone[2, 3]) == pytest.approx(math.sqrt(8))
    assert gaussian.argmax() == 12
    for y, x in ((2, 3), (1, 1), (0, 0)):
        expected = math.exp(-((y - 2) ** 2 + (x - 2) ** 2) / 2)
        assert float(gaussian[y, x] / gaussian[2, 2]) == pytest.approx(expected)


def slow(image, size, kernel):
    """Pixel by pixel, in float64."""
    weights = smoothing(kernel).double()
    b, _, h, w = image.shape
    smooth = torch.zeros(b, 3, h - 4, w - 4, dtype=torch.float64)
    for y in range(h - 4):
        for x in range(w - 4):
            smooth[:, :, y, x] = (image[:, :, y : y + 5, x : x + 5].double() * weights).sum(dim=(2, 3))
    small = interpolate(smooth, size=size, mode="bilinear", align_corners=False)
    for one in small.flatten(0, 1):
        one -= one.mean()
        one /= one.abs().max()
    return small.movedim(1, -1)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(4, 6), (2, 2), (20, 30)])
def test_smoothed_resized_centred_and_scaled_as_a_slow_loop_does(kernel, size):
    image = torch.randn(2, 3, 16, 21, generator=torch.Generator().manual_seed(0))
    ours = colours(image, size, kernel)
    assert ours.shape == (2, *size, 3) and ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), slow(image, size, kernel), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_neither_brightness_nor_contrast_of_an_image_matters(kernel):
    image = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        colours(image, (3, 3), kernel), colours(7 * image + 3, (3, 3), kernel), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("value", [0.0, 0.1, -2.117904])
def test_a_channel_of_one_value_is_zero(value):
    image = torch.full((1, 3, 16, 16), value)
    image[:, 1] = torch.randn(16, 16, generator=torch.Generator().manual_seed(2))
    ours = colours(image, (4, 4), "cone")
    assert (ours[..., [0, 2]] == 0).all() and float(ours[..., 1].abs().max()) == pytest.approx(1)


def test_no_images_are_no_colours():
    assert colours(torch.zeros(0, 3, 16, 16), (4, 4), "cone").shape == (0, 4, 4, 3)
