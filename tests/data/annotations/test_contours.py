"""Contour strength by colour and texture gradients."""

from __future__ import annotations

import numpy as np
import pytest

from spml_dist.data.annotations.contours import contours

HEIGHT, WIDTH, EDGE = 48, 64, 32


def halves(left, right) -> np.ndarray:
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:, :EDGE], image[:, EDGE:] = left, right
    return image


def stripes(across: bool) -> np.ndarray:
    """Black and white stripes of two pixels, all over the image."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    return np.where((columns if across else rows)[..., None] // 2 % 2, 160, 90).astype(np.uint8)


def strongest_column(image: np.ndarray) -> int:
    return int(contours(image).strength[8:-8].mean(axis=0).argmax())


@pytest.mark.parametrize(
    ("left", "right"),
    [((40, 40, 40), (190, 190, 190)), ((150, 90, 90), (90, 120, 90)), ((0, 0, 0), (0, 0, 90))],
)
def test_the_border_of_two_colours_is_the_strongest_contour_and_points_across(left, right):
    found = contours(halves(left, right))
    assert found.strength.shape == found.across.shape == (HEIGHT, WIDTH)
    assert found.strength.dtype == np.float32
    assert abs(strongest_column(halves(left, right)) - (EDGE - 0.5)) <= 1
    assert np.allclose(found.across[8:-8, EDGE - 1 : EDGE + 1], 0)  # along the x axis
    assert found.strength[:, : EDGE - 12].max() < 0.2 * found.strength[8:-8, EDGE].min()


def test_a_border_that_lies_flat_points_down():
    image = np.ascontiguousarray(halves(40, 190).transpose(1, 0, 2))
    assert np.allclose(contours(image).across[EDGE - 1 : EDGE + 1, 8:-8], np.pi / 2)


def test_a_slanted_border_points_across_itself():
    rows, columns = np.indices((64, 64))
    image = np.where((columns + rows > 64)[..., None], 190, 40).repeat(3, axis=-1).astype(np.uint8)
    on_border = contours(image).across[16:48][(columns + rows == 64)[16:48]]
    assert np.allclose(on_border, np.pi / 4)


def test_texture_alone_makes_a_contour_where_the_mean_colour_does_not_change():
    image = halves(0, 0)
    image[:, :EDGE], image[:, EDGE:] = stripes(True)[:, :EDGE], stripes(False)[:, EDGE:]
    wide = contours(image).strength[8:-8].mean(axis=0)
    inside = np.concatenate([wide[10 : EDGE - 10], wide[EDGE + 10 : -10]])
    assert wide[EDGE - 3 : EDGE + 3].max() > inside.max()


def test_a_stronger_change_is_a_stronger_contour():
    strengths = [float(contours(halves(100, 100 + step)).strength.max()) for step in (0, 10, 30, 90)]
    assert strengths == sorted(strengths) and strengths[-1] > 10 * strengths[0]


def test_a_mirrored_image_has_mirrored_strengths():
    image = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    image[:, 20:, 0] //= 3
    mirrored = contours(np.ascontiguousarray(image[:, ::-1])).strength[:, ::-1]
    assert np.abs(contours(image).strength - mirrored).mean() < 0.02


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (2, 3), (5, 40)])
def test_the_smallest_images_have_contours_too(shape):
    found = contours(np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8))
    assert found.strength.shape == shape
    assert np.isfinite(found.strength).all() and ((found.strength >= 0) & (found.strength <= 1)).all()
