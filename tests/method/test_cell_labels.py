"""Labels of cells by majority, against a slow reference that counts pixel by pixel."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.method.cell_labels import majority_labels
from spml_dist.method.segments import resize_labels
from spml_dist.records import IGNORED, UNLABELLED


def slow(labels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """[B, H, W] -> [B, *size]."""
    out = resize_labels(labels, size)
    (_, height, width), (rows, columns) = labels.shape, size
    high, wide = -(-height // rows), -(-width // columns)
    for b, row, column in torch.cartesian_prod(*map(torch.arange, out.shape)).tolist():
        if out[b, row, column] != IGNORED:
            cell = labels[b, row * high : (row + 1) * high, column * wide : (column + 1) * wide]
            counts = Counter(label for label in cell.flatten().tolist() if label < UNLABELLED)
            most = max(counts.values(), default=0)
            out[b, row, column] = min((k for k, n in counts.items() if n == most), default=UNLABELLED)
    return out


@given(
    st.integers(0, 2**31),
    st.integers(1, 24),
    st.integers(1, 24),
    st.sampled_from([torch.uint8, torch.int32]),
)
@settings(max_examples=60, deadline=None)
def test_it_is_the_count_of_every_pixel(seed, height, width, dtype):
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.tensor([0, 1, 7, 253, UNLABELLED, UNLABELLED, UNLABELLED, IGNORED])
    labels = kinds[torch.randint(len(kinds), (2, height, width), generator=generator)].to(dtype)
    size = (-(-height // 4), -(-width // 4))
    ours = majority_labels(labels, size)
    assert ours.dtype == torch.int64 and torch.equal(ours, slow(labels, size))


def test_a_scribble_of_one_pixel_labels_every_cell_that_it_crosses():
    """The nearest neighbour meets it in none."""
    labels = torch.full((1, 16, 16), UNLABELLED, dtype=torch.uint8)
    labels[0, 5] = 3
    assert (resize_labels(labels, (4, 4)) == UNLABELLED).all()
    expected = torch.full((1, 4, 4), UNLABELLED)
    expected[0, 1] = 3
    assert torch.equal(majority_labels(labels, (4, 4)), expected)


def test_which_cells_take_part_does_not_change():
    labels = torch.tensor([[[IGNORED, 1, 0, IGNORED], [1, 1, IGNORED, IGNORED]]], dtype=torch.uint8)
    assert majority_labels(labels, (1, 2)).tolist() == [[[IGNORED, 0]]]


@pytest.mark.parametrize("batch", [0, 1])
def test_maps_of_the_grid_s_size_stay(batch):
    labels = torch.tensor([[[0, UNLABELLED], [IGNORED, 5]]], dtype=torch.uint8)[:batch]
    assert torch.equal(majority_labels(labels, (2, 2)), labels.long())
