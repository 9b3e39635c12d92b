"""Boxes and areas of segments, in the crop and in the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.method.extent import extent, in_image

WHOLE = (0.0, 0.0, 1.0, 1.0)


def reference(valid, segment, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel by pixel, each enlarging the box of its segment."""
    _, h, w = valid.shape
    places = [(y, x) for image in valid.tolist() for y in range(h) for x in range(w) if image[y][x]]
    boxes, area = [None] * count, np.zeros(count)
    for (y, x), s in zip(places, segment.tolist(), strict=True):
        top, left, bottom, right = boxes[s] or (y, x, y, x)
        boxes[s] = min(top, y), min(left, x), max(bottom, y + 1), max(right, x + 1)
        area[s] += 1 / (h * w)
    return np.array([box or (0, 0, 0, 0) for box in boxes]).reshape(count, 4) / [h, w, h, w], area


def drawn(seed: int, shape=(2, 6, 9), count: int = 7):
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(shape, generator=generator) < 0.7
    return valid, torch.randint(0, count, (int(valid.sum()),), generator=generator), count


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(0, 3), st.integers(1, 7), st.integers(1, 7)),
    st.integers(1, 60),
)
def test_box_and_area_are_those_of_a_walk_over_all_pixels(seed, shape, count):
    """Many segments of the larger counts have no pixel at all."""
    valid, segment, count = drawn(seed, shape, count)
    box, area = extent(valid, segment, count)
    assert box.shape == (count, 4) and box.dtype == area.dtype == torch.float32
    expected_box, expected_area = reference(valid, segment, count)
    np.testing.assert_allclose(box, expected_box, rtol=1e-6)
    np.testing.assert_allclose(area, expected_area, rtol=1e-5)


def test_one_pixel_covers_its_cell_and_all_pixels_the_crop():
    valid = torch.zeros(1, 4, 5, dtype=torch.bool)
    valid[0, 1, 2] = True
    box, area = extent(valid, torch.zeros(1, dtype=torch.int64), 1)
    np.testing.assert_allclose(box, [[1 / 4, 2 / 5, 2 / 4, 3 / 5]], rtol=1e-6)
    assert area.item() == pytest.approx(1 / 20)
    box, area = extent(torch.ones_like(valid), torch.zeros(20, dtype=torch.int64), 1)
    assert box.tolist() == [list(WHOLE)] and area.tolist() == [1]


def test_no_segments_have_no_extent():
    valid = torch.zeros(2, 4, 4, dtype=torch.bool)
    box, area = extent(valid, torch.zeros(0, dtype=torch.int64), 0)
    assert box.shape == (0, 4) and area.shape == (0,)
    box, area = in_image(box, area, torch.zeros(0, 4))
    assert box.shape == (0, 4) and area.shape == (0,)


@pytest.mark.parametrize(
    ("window", "expected", "share"),
    [
        (WHOLE, (0.25, 0.5, 0.5, 0.75), 1.0),
        ((0.5, 0.0, 1.0, 0.5), (0.625, 0.25, 0.75, 0.375), 0.25),
        ((0.0, 1.0, 1.0, 0.0), (0.25, 0.25, 0.5, 0.5), 1.0),  # mirrored
        ((0.5, 1.0, 1.0, 0.5), (0.625, 0.625, 0.75, 0.75), 0.25),  # the right half, mirrored
        ((0.0, 0.0, 1.0, 1.5), (0.25, 0.75, 0.5, 1.0), 1.5),  # padded on the right: clipped
        ((0.0, 1.0, 1.0, -0.5), (0.25, 0.0, 0.5, 0.25), 1.5),  # the same, mirrored
    ],
)
def test_a_box_in_a_window_of_the_image(window, expected, share):
    box, area = in_image(
        torch.tensor([[0.25, 0.5, 0.5, 0.75]]), torch.tensor([0.0625]), torch.tensor([window])
    )
    assert box.tolist() == [list(expected)] and area.tolist() == [0.0625 * share]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.booleans(), st.integers(0, 3), st.integers(0, 4))
def test_a_mirrored_crop_s_segments_lie_where_the_image_has_them(seed, mirrored, top, left):
    """Segments of a 3 × 5 crop of a 6 × 9 image, against the same pixels left in the image."""
    valid, segment, count = drawn(seed)
    labels = torch.full(valid.shape, -1)
    labels[valid] = segment
    crop = labels[:, top : top + 3, left : left + 5]
    window = torch.tensor([top / 6, left / 9, (top + 3) / 6, (left + 5) / 9])
    if mirrored:
        crop, window = crop.flip(2), window[[0, 3, 2, 1]]
    kept = torch.full_like(labels, -1)
    kept[:, top : top + 3, left : left + 5] = labels[:, top : top + 3, left : left + 5]
    box, area = in_image(*extent(crop >= 0, crop[crop >= 0], count), window.expand(count, 4))
    expected_box, expected_area = extent(kept >= 0, kept[kept >= 0], count)
    there = expected_area > 0
    torch.testing.assert_close(box[there], expected_box[there])
    torch.testing.assert_close(area, expected_area)
