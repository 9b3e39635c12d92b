"""Scores of a coarse grid become labels and confidences of pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spml_dist.labeling import painting, random_walk
from spml_dist.labeling.painting import centres, painted, sampled
from spml_dist.records import UNLABELLED


def scores(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("at_once", [1, 500, 1 << 22])
@pytest.mark.parametrize("size", [(37, 50), (3, 2), (1, 1), (12, 15)])
def test_it_is_the_argmax_of_the_resized_maps_however_many_rows_are_painted_at_a_time(
    monkeypatch, size, at_once
):
    monkeypatch.setattr(painting, "ROWS_AT_ONCE", at_once)
    maps = scores(4, 6, 5)
    full = random_walk.resize(maps, size)
    labels, confidence = painted(maps, (0, 3, 7, 9), size)
    np.testing.assert_array_equal(labels, np.array([0, 3, 7, 9])[full.argmax(dim=0).numpy()])
    np.testing.assert_allclose(confidence, (full.amax(dim=0) / full.sum(dim=0)).numpy(), atol=1e-5)


def test_where_nothing_speaks_there_is_no_label():
    maps = torch.zeros(2, 1, 2)
    maps[1, 0, 1] = 0.5
    labels, confidence = painted(maps, (4, 6), (1, 2))
    assert labels.tolist() == [[UNLABELLED, 6]] and confidence.tolist() == [[0, 1]]


def test_what_speaks_for_classes_that_cannot_be_makes_a_label_less_sure():
    labels, confidence = painted(torch.full((1, 1, 1), 0.2), (5,), (1, 1), torch.full((1, 1), 0.6))
    assert labels.tolist() == [[5]] and confidence[0, 0] == pytest.approx(0.25)


@pytest.mark.parametrize("at_once", [1, 1 << 22])
def test_a_class_that_has_boxes_wins_no_pixel_outside_them(monkeypatch, at_once):
    """Class 2 is the strongest everywhere and lies in two boxes, 4 has no box and may be anywhere, 7 is the
    weakest and in a box of its own; 9 has a box and no map."""
    monkeypatch.setattr(painting, "ROWS_AT_ONCE", at_once)
    maps = torch.tensor([0.6, 0.3, 0.1])[:, None, None].expand(3, 2, 2)
    boxes = [(2, 0, 0, 2, 1), (2, 1, 2, 4, 9), (7, 0, 0, 4, 3), (9, 0, 0, 4, 3)]
    labels, confidence = painted(maps, (2, 4, 7), (3, 4), boxes=boxes)
    assert labels.tolist() == [[2, 2, 4, 4], [4, 4, 4, 4], [4, 2, 2, 2]]
    np.testing.assert_allclose(confidence, np.where(labels == 2, 0.6, 0.3), atol=1e-6)
    labels, confidence = painted(maps[:1], (2,), (3, 4), boxes=boxes)
    assert labels.tolist() == [[2, 2, 254, 254], [254] * 4, [254, 2, 2, 2]]
    np.testing.assert_array_equal(confidence, labels == 2)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (9, 2), (6, 5)])
def test_sampling_at_the_centres_of_cells_gives_the_cells(height, width):
    maps = scores(2, 3, height, width)
    places = centres(slice(0, height), height, 80), centres(slice(0, width), width, 80)
    torch.testing.assert_close(sampled(maps, (80, 80), *places), maps)


def test_sampling_halfway_is_the_mean_as_when_maps_are_enlarged_first():
    maps = scores(1, 2, 8, 10)
    places = centres(slice(0, 4), 4, 32), centres(slice(0, 5), 5, 40)
    enlarged = random_walk.resize(maps[0], (32, 40))
    torch.testing.assert_close(
        sampled(maps, (32, 40), *places)[0], random_walk.resize(enlarged, (4, 5)), atol=1e-5, rtol=0
    )
