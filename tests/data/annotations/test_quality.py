"""The measures of over-segmentation, against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spml_dist.data.annotations.quality import achievable_accuracy, boundary_recall, undersegmentation_error

ids = arrays(np.uint16, (7, 9), elements=st.integers(0, 5))


def boundary_pixels(labels):
    height, width = labels.shape
    return [
        (y, x)
        for y in range(height)
        for x in range(width)
        if (y + 1 < height and labels[y, x] != labels[y + 1, x])
        or (x + 1 < width and labels[y, x] != labels[y, x + 1])
    ]


@settings(deadline=None)
@given(ids, ids, st.sampled_from([0, 1, 2]))
def test_boundary_recall_is_that_of_a_loop_over_boundary_pixels(regions, truth, tolerance):
    wanted, found = boundary_pixels(truth), boundary_pixels(regions)
    near = [any((y - v) ** 2 + (x - u) ** 2 <= tolerance**2 for v, u in found) for y, x in wanted]
    expected = np.mean(near) if wanted else 1.0
    assert boundary_recall(regions, truth, tolerance) == pytest.approx(expected)


@settings(deadline=None)
@given(ids, ids)
def test_undersegmentation_error_is_that_of_a_loop_over_segments_and_regions(regions, truth):
    leaked = 0
    for segment in np.unique(truth):
        for region in np.unique(regions[truth == segment]):
            inside = ((regions == region) & (truth == segment)).sum()
            leaked += min(inside, (regions == region).sum() - inside)
    assert undersegmentation_error(regions, truth) == pytest.approx(leaked / truth.size)


@settings(deadline=None)
@given(ids, ids)
def test_achievable_accuracy_is_that_of_labelling_every_region_by_majority(regions, truth):
    labelled = np.zeros_like(truth)
    for region in np.unique(regions):
        labelled[regions == region] = np.bincount(truth[regions == region]).argmax()
    assert achievable_accuracy(regions, truth) == pytest.approx((labelled == truth).mean())


@settings(deadline=None)
@given(ids)
def test_the_truth_itself_is_perfect(truth):
    assert (boundary_recall(truth, truth, 0), undersegmentation_error(truth, truth)) == (1, 0)
    assert achievable_accuracy(truth, truth) == 1
