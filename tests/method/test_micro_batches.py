"""Micro-batches divided by what the whole step has: a pixel weighs the same whatever is beside it."""

from __future__ import annotations

import pytest
import torch

from spml_dist.method.step import TERMS, losses, step_counts
from tests.method.test_step import CROP, SIDE, World, configured, example
from tests.remembering import remembering

ALONE = dict.fromkeys(("image_similarity", "annotation", "cooccurrence", "feature_affinity"), 0.0)


def parts(world: World) -> list[World]:
    return [world.part(rank, len(world.counts)) for rank in range(len(world.counts))]


def gradient(worlds: list[World], config, together: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """To the classifier's logits, of micro-batches as an engine adds them up; and the values' mean."""
    counts = step_counts([world.batch for world in worlds], (SIDE, SIDE), config) if together else None
    found, values = [], torch.zeros(len(TERMS), dtype=torch.float64)
    for world in worlds:
        leaves = [v.double().requires_grad_() for v in (world.raw, world.logits)]
        done = losses(*leaves, world.batch, remembering([]), 0, config, counts=counts)
        (done.total / len(worlds)).backward()
        found.append(leaves[1].grad)
        values += done.values / len(worlds)
    return torch.cat(found), values


def test_cross_entropy_of_several_is_that_of_one_batch():
    world, config = example(), configured(**ALONE)
    whole = gradient([world], config, together=False)
    together, apart = (gradient(parts(world), config, each) for each in (True, False))
    torch.testing.assert_close(together, whole, rtol=1e-12, atol=1e-14)
    assert (apart[0] - whole[0]).abs().max() > 0.01 * whole[0].abs().max()


@pytest.mark.parametrize("labels", ["nearest", "majority"])
def test_counts_are_those_that_a_whole_batch_is_divided_by(labels):
    """Each relation's sum over a micro-batch is its own mean times its count; together, over the step's."""
    world = example(ignored=(3,))
    config = configured(changed=[f"segments.labels={labels}"], feature_affinity=0.0)
    counts = step_counts([each.batch for each in parts(world)], (SIDE, SIDE), config)
    own = [step_counts([each.batch], (SIDE, SIDE), config) for each in parts(world)]
    torch.testing.assert_close(counts * len(own), sum(own))
    expected = torch.zeros(4, dtype=torch.float64)
    for each, mine in zip(parts(world), own, strict=True):
        expected += gradient([each], config, together=False)[1][[0, 1, 2, 4]] * mine / sum(own)
    _, values = gradient(parts(world), config, together=True)
    torch.testing.assert_close(values[[0, 1, 2, 4]], expected)
    assert counts[0] * len(own) == 4 and CROP > SIDE


def test_a_step_without_labels_divides_by_one():
    world = example(unlabelled=range(5))
    counts = step_counts([each.batch for each in parts(world)], (SIDE, SIDE), configured())
    assert counts[1] == counts[3] == 1 / 3
