"""Coordinates beside the embedding."""

from __future__ import annotations

import pytest
import torch

from spml_dist.method.location import location


def test_row_first_then_column_each_from_minus_a_half_to_a_half():
    ours = location(3, 5)
    assert ours.shape == (3, 5, 2)
    assert ours[:, 0, 0].tolist() == [-0.5, 0.0, 0.5]
    assert ours[0, :, 1].tolist() == [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert (ours[..., 0] == ours[:, :1, 0]).all() and (ours[..., 1] == ours[:1, :, 1]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_is_as_asked(dtype):
    assert location(2, 2, dtype=dtype).dtype == dtype
