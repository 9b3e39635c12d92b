"""Boundary IoU, beside a mask-by-mask erosion as its authors do it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spml_dist.inference.boundary import boundary_counts, boundary_iou

K = 3
maps = arrays(np.uint8, (30, 40), elements=st.sampled_from([0, 1, 2]))


def published(mask: np.ndarray) -> np.ndarray:
    """Cheng et al.: the mask without its erosion, of 3 × 3 as often as the distance, in a frame of zeros."""
    distance = max(1, round(0.02 * np.hypot(*mask.shape)))
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
    return mask & ~eroded.astype(bool)


@settings(deadline=None)
@given(maps, maps)
def test_it_is_the_published_one_class_by_class(truth, prediction):
    truth, prediction = (
        cv2.resize(m, (80, 60), interpolation=cv2.INTER_NEAREST) for m in (truth, prediction)
    )
    counts = boundary_counts(truth, prediction, K)
    for label in range(K):
        edges = [published(labels == label) for labels in (truth, prediction)]
        assert counts[:, label].tolist() == [edges[0].sum(), edges[1].sum(), (edges[0] & edges[1]).sum()]
        union = (edges[0] | edges[1]).sum()
        expected = (edges[0] & edges[1]).sum() / max(union, 1)
        assert boundary_iou(counts)[label] == pytest.approx(expected)


def test_a_shift_costs_the_boundary_more_than_the_mask():
    truth = np.zeros((200, 200), np.uint8)
    truth[50:150, 50:150] = 1
    counts = boundary_counts(truth, np.roll(truth, 4, axis=1), 2)
    assert boundary_iou(counts)[1] < 0.6
    assert boundary_iou(boundary_counts(truth, truth, 2)).tolist() == pytest.approx([1, 1])


def test_what_the_truth_ignores_is_no_mistake():
    truth = np.zeros((40, 40), np.uint8)
    truth[:, 20:] = 255
    other = np.where(truth == 255, 1, 0)
    assert boundary_counts(truth, other, 2).tolist() == boundary_counts(truth, truth, 2).tolist()
    assert boundary_counts(truth, other, 2)[:, 1].tolist() == [0, 0, 0]
