"""The VOC protocol: counts over everything, IoU per class, mean over all classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.classification import MulticlassJaccardIndex

from spml_dist.inference import metrics

K = 4
labels = arrays(np.uint8, (2, 5, 6), elements=st.sampled_from([*range(K), 254, 255]))


@settings(deadline=None)
@given(labels, labels)
def test_counts_are_those_of_a_loop_over_the_pixels(truth, prediction):
    expected = np.zeros((K, K + 1), np.int64)
    for row, column in zip(truth.ravel(), prediction.ravel(), strict=True):
        if row < K:
            expected[row, min(column, K)] += 1
    np.testing.assert_array_equal(metrics.confusion(truth, prediction, K), expected)


@settings(deadline=None)
@given(labels, labels)
def test_images_add_up(truth, prediction):
    parts = [metrics.confusion(t, p, K) for t, p in zip(truth, prediction, strict=True)]
    np.testing.assert_array_equal(sum(parts), metrics.confusion(truth, prediction, K))


@settings(deadline=None)
@given(labels)
def test_the_truth_itself_scores_one_in_every_class_it_holds(truth):
    counts = metrics.confusion(truth, truth, K)
    there = metrics.present(counts)
    np.testing.assert_array_equal(there, [np.any(truth == label) for label in range(K)])
    np.testing.assert_allclose(metrics.iou(counts), there.astype(float), atol=1e-12)
    assert metrics.pixel_accuracy(counts) == float(there.any())


@settings(deadline=None)
@given(labels, labels)
def test_torchmetrics_agrees_once_absent_classes_are_counted_as_zero(truth, prediction):
    """Its macro average leaves out classes that neither truth nor prediction shows; the protocol's not."""
    assume((truth < K).any())
    counted = torch.from_numpy(np.where(truth < K, truth, 255).astype(np.int64))
    guess = torch.from_numpy((prediction % K).astype(np.int64))
    counts = metrics.confusion(truth, guess.numpy(), K)

    each = MulticlassJaccardIndex(K, average=None, ignore_index=255)(guess, counted)
    np.testing.assert_allclose(metrics.iou(counts), each.numpy(), atol=1e-6)

    seen = ((counts.sum(axis=1) + counts[:, :K].sum(axis=0)) > 0).sum()
    macro = MulticlassJaccardIndex(K, average="macro", ignore_index=255)(guess, counted)
    assert metrics.miou(counts) * K == pytest.approx(float(macro) * seen, abs=1e-6)


def test_a_prediction_outside_the_classes_is_wrong_for_its_class_and_blames_no_other():
    counts = metrics.confusion(np.array([0, 0, 1, 1]), np.array([0, 254, 1, -1]), 2)
    np.testing.assert_allclose(metrics.iou(counts), [0.5, 0.5])
    assert metrics.pixel_accuracy(counts) == 0.5


def test_an_absent_class_counts_as_zero_in_the_mean():
    counts = metrics.confusion(np.array([0, 1]), np.array([0, 1]), 3)
    assert metrics.miou(counts) == pytest.approx(2 / 3)
    assert metrics.present(counts).tolist() == [True, True, False]


def test_different_shapes_are_refused_rather_than_broadcast():
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.confusion(np.zeros((2, 3), int), np.zeros((1, 3), int), 2)
