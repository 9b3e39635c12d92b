"""Where a step makes the host wait for a GPU: run on fake CUDA tensors, which have shapes and no numbers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.counting import GPUS, backward, counted
from benchmarks.launches import SIZES, Size, answers, placed, step, summary
from spml_dist.config import load
from spml_dist.model.batch_norm import GlobalBatchNorm

SMALL = Path(__file__).parents[1] / "small.yaml"
SIZE = replace(SIZES["paper"], images=2, crop=64, bank=20, segments=9, regions=3)
READS = {
    "method/segments.py:segment": 2,  # how many pixels are valid, how many segments they make
    "method/batch_segments.py:exchange": 1,  # how many segments every rank has
    "method/cross_entropy.py:cross_entropy": 1,  # how many pixels are labelled
}
"""The whole list. A step waits at each of these until the device has nothing left to do."""


def test_the_host_waits_for_the_device_here_and_nowhere_else():
    assert counts(SIZE)["reads"] == READS


def test_four_times_a_step_also_where_pixels_are_drawn():
    assert counts(SIZE, "loss.pixels_per_segment=2")["reads"] == READS and sum(READS.values()) == 4


def test_what_else_can_be_asked_for_waits_here():
    words = ("relations.feature_affinity.weight=0.5", "loss.pixels_per_segment=2", "segments.colour=gaussian")
    more = {
        "method/batch_segments.py:propagate": 3,  # which segments are annotated, how many of each rank
    }
    assert counts(SIZE, *words, "segments.labels=majority")["reads"] == READS | more


def test_one_process_alone_asks_no_other():
    alone = {place: times for place, times in READS.items() if "exchange" not in place}
    assert counts(replace(SIZE, world=1))["reads"] == alone


def test_launches_do_not_grow_with_the_batch():
    small, large = (counts(size)["parts"] for size in (SIZE, replace(SIZE, images=4, crop=128)))
    for part in ("segments", "loss", "loss backward", "optimizer"):
        assert small[part]["operations"] == large[part]["operations"], part
    assert large["loss"]["gb"] > 4 * small["loss"]["gb"]


def test_a_batch_norm_takes_a_few_kernels_forward_and_back():
    """In a network of twelve: statistics, exchange, result; and back."""
    parts = counts(SIZE)["parts"]
    assert parts["network"]["collectives"] == parts["network backward"]["collectives"] == 12
    assert parts["network"]["operations"] < 12 * 16


@pytest.mark.parametrize("world", [1, 8])
def test_memory_is_let_go_as_the_gradient_passes(world):
    """Four convolutions and batch norms keep an input each; two gradients are there at once."""
    size = replace(SIZE, world=world)
    with torch.device("meta"):
        layers = [
            layer
            for _ in range(4)
            for layer in (nn.Conv2d(64, 64, 1, bias=False), GlobalBatchNorm(64), nn.ReLU(inplace=True))
        ]
    model = nn.Sequential(*layers)
    with counted(GPUS, answers(size, load(SMALL)), world) as counting:
        placed(model, torch.device("cuda:0"), torch.float32)
        images = torch.empty(16, 64, 32, 32, device="cuda:0", requires_grad=True)
        before, one = counting.held, images.numel() * 4
        backward(model(images).sum())
        assert counting.peak - before == pytest.approx((8 + 1) * one, rel=0.02)
        assert counting.held - before == pytest.approx(one, rel=0.1), "the images' gradient, and the weights'"


@cache
def counts(size: Size, *words: str) -> dict:
    """A step of the small network."""
    return summary(step(size, load(SMALL, ["relations.image_similarity.weight=0.1", *words])))
