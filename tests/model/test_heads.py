"""Heads: from backbone features to embeddings, from embeddings to classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, interpolate

from spml_dist.model.batch_norm import globalise
from spml_dist.model.heads import ClassifierHead, DeepLabHead, PSPNetHead, SampleDropout, counted_draws


def test_deeplab_is_the_sum_of_its_dilated_convolutions():
    torch.manual_seed(0)
    head, x = DeepLabHead(6, 4, (1, 3, 6)), torch.randn(2, 6, 7, 9)
    parts = [
        conv2d(x, branch.weight, branch.bias, padding=rate, dilation=rate)
        for rate, branch in zip((1, 3, 6), head.branches, strict=True)
    ]
    torch.testing.assert_close(head(x), sum(parts))


def test_pspnet_mixes_the_map_with_its_averages_over_a_pyramid_of_parts():
    """Against avg_pool2d, whose windows are the parts on a map of 6×12."""
    torch.manual_seed(0)
    head, x = PSPNetHead(8, 5).eval(), torch.randn(2, 8, 6, 12)
    with torch.no_grad():
        for norm in (module for module in head.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()

    def through(block: nn.Sequential, x: torch.Tensor, padding: int = 0) -> torch.Tensor:
        conv, norm, _ = block
        y = conv2d(x, conv.weight, padding=padding)
        return batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()

    parts = [x]
    for parts_a_side, level in zip((1, 2, 3, 6), head.pyramid, strict=True):
        pooled = avg_pool2d(x, (6 // parts_a_side, 12 // parts_a_side))
        parts.append(interpolate(through(level, pooled), size=(6, 12), mode="bilinear"))
    expected = conv2d(through(head.mix, torch.cat(parts, 1), 1), head.embed.weight, head.embed.bias)
    torch.testing.assert_close(head(x), expected)
    assert [parts[i].shape[1] for i in range(5)] == [8, 2, 2, 2, 2] and len(expected[0]) == 5


@pytest.mark.parametrize("head", [DeepLabHead(8, 4, (1, 2)), globalise(PSPNetHead(8, 4))])
def test_heads_without_images(head):
    assert head(torch.zeros(0, 8, 5, 7)).shape == (0, 4, 5, 7)


def test_pspnet_trains_on_a_single_image():
    """Its coarsest average has one value a channel, from which no batch norm of one worker could learn."""
    head = globalise(PSPNetHead(8, 4))
    head(torch.randn(1, 8, 6, 6)).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


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


def test_draws_of_a_gpu_are_functions_of_an_image_s_seed_and_an_entry_s_place():
    device = torch.device("cpu")
    draws = counted_draws([7, 8, 2**62 + 9], (8, 40, 40), 0.25, device)
    assert torch.equal(counted_draws([8], (8, 40, 40), 0.25, device), draws[1:2]), "whatever else is there"
    shares = (
        draws.float().mean(dim=(1, 2, 3)),
        draws.float().mean(dim=(0, 2, 3)),
        draws.float().mean(dim=(0, 1)),
    )
    for share, tolerance in zip(shares, (0.02, 0.02, 0.4), strict=True):
        assert (share - 0.75).abs().max() < tolerance
    # Of two images, of neighbours in a row and in a column, both are kept as often as of independent draws.
    for a, b in (
        (draws[0], draws[1]),
        (draws[..., 1:], draws[..., :-1]),
        (draws[..., 1:, :], draws[..., :-1, :]),
    ):
        assert (a & b).float().mean().item() == pytest.approx(0.75**2, abs=0.02)
    assert not torch.equal(*counted_draws([5, 5 + 2**32], (8, 40), 0.5, device)), (
        "both halves of a seed count"
    )
    assert counted_draws([], (3, 4), 0.5, device).shape == (0, 3, 4)


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
