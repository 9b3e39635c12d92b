"""Heads: from backbone features to embeddings, from embeddings to classes."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, interpolate

from spml_dist.model.heads import ClassifierHead, DeepLabHead, SampleDropout


def test_deeplab_is_the_sum_of_its_dilated_convolutions_doubled_in_size():
    torch.manual_seed(0)
    head, x = DeepLabHead(6, 4, (1, 3, 6)), torch.randn(2, 6, 7, 9)
    parts = [
        conv2d(x, branch.weight, branch.bias, padding=rate, dilation=rate)
        for rate, branch in zip((1, 3, 6), head.branches, strict=True)
    ]
    expected = interpolate(sum(parts), size=(14, 18), mode="bilinear", align_corners=False)
    torch.testing.assert_close(head(x), expected)


def test_deeplab_without_images():
    assert DeepLabHead(6, 4, (1, 2))(torch.zeros(0, 6, 5, 5)).shape == (0, 4, 10, 10)


def test_dropout_depends_on_its_seeds_alone():
    dropout, x = SampleDropout(0.4), torch.ones(3, 5, 6, 7)
    torch.manual_seed(0)
    first = dropout(x, [7, 8, 9])
    torch.manual_seed(1)
    assert torch.equal(dropout(x, [7, 8, 9]), first)
    assert torch.equal(dropout(x[:1], [8]), first[1:2]), "whatever else is in the batch"
    assert torch.equal(dropout(x, [9, 7, 8]), first[[2, 0, 1]])
    assert not torch.equal(dropout(x, [7, 8, 10])[2], first[2])


def test_dropout_leaves_the_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    SampleDropout(0.4)(torch.ones(1, 2, 3, 3), [5])
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_drops_that_share_of_single_entries_and_keeps_the_mean():
    kept = SampleDropout(0.25)(torch.ones(1, 8, 40, 40), [3])
    assert sorted(kept.unique().tolist()) == [0, pytest.approx(1 / 0.75)]
    assert (kept == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert len(kept.sum(dim=1).unique()) > 2, "entries, not whole pixels or channels"


@pytest.mark.parametrize("dropout", [SampleDropout(0.0), SampleDropout(0.5).eval()])
def test_dropout_does_nothing_without_probability_or_in_evaluation(dropout):
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(dropout(x, ()), x)


def test_dropout_keeps_the_type_and_takes_no_images():
    dropout = SampleDropout(0.5)
    assert dropout(torch.ones(1, 2, 3, 3, dtype=torch.bfloat16), [1]).dtype == torch.bfloat16
    assert dropout(torch.ones(0, 2, 3, 3), []).shape == (0, 2, 3, 3)


def test_the_classifier_is_two_convolutions_with_batch_norm_and_relu_between():
    torch.manual_seed(0)
    head, x = ClassifierHead(4, 3, 0.5).eval(), torch.randn(2, 4, 5, 5)
    hidden = conv2d(x, head.mix.weight, padding=1)
    hidden = batch_norm(hidden, torch.zeros(8), torch.ones(8), head.norm.weight, head.norm.bias).relu()
    torch.testing.assert_close(head(x), conv2d(hidden, head.classify.weight, head.classify.bias))
    assert head.mix.bias is None
