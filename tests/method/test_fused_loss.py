"""The loss in fused kernels against the tiled one, in Triton's interpreter: the same code on a CPU."""

from __future__ import annotations

import importlib.util
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.method import fused_loss, loss
from spml_dist.method.loss import contrast
from spml_dist.method.relations import image_similarity
from spml_dist.records import Pixels, Relation, Segments
from tests.method.test_loss import Problem, assert_close, example, problems, relations_of, units

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def fused(problem: Problem, products="float32", tile: int = 16):
    """The problem solved by the kernels, in tiles of some pixels and candidates."""
    fits = mock.patch.object(fused_loss, "fits", lambda embedding, relations: True)
    with fits, mock.patch.multiple(fused_loss, M=tile, N=tile):
        return solved(problem, products)


def solved(problem: Problem, products="float32"):
    e, p = (v.float().requires_grad_() for v in (problem.embedding.clone(), problem.prototype.clone()))
    given = (problem.own, problem.blocks, problem.weights, problem.constants, problem.log_weight)
    result = contrast(e, p, *given, products=products)
    result.loss.backward()
    return result.loss.item(), result.values, result.without_positive.tolist(), e.grad, p.grad


@settings(deadline=None, max_examples=8)
@given(problems())
def test_kernels_and_tiles_give_the_same(problem):
    assert_close(fused(problem), solved(problem), 1e-5)


@pytest.mark.parametrize("kappas", [[6.0, 12.0, 12.0], [6.0, 6.0, 12.0], [5.0, 7.0, 16.0]])
def test_over_many_tiles_whatever_the_concentrations_share(kappas):
    problem = example(n=70, p=37, constants=9, log_weight=torch.linspace(0, 4, 9))
    generator = torch.Generator().manual_seed(3)
    relations = relations_of(generator, 70, 37, kappas, [False, True, False], unseen=1)
    block = problem.blocks[0]
    problem.blocks = [type(block)(block.rows, block.columns, relations, (1 / 70, 1 / 50, 1 / 30))]
    problem.weights = (1.0, 0.5, 0.25)
    assert_close(fused(problem), solved(problem), 1e-5)


def test_rounded_factors_cost_three_digits():
    problem = example(n=70, p=37)
    exact, rounded = solved(problem), fused(problem, "bfloat16")
    assert rounded[0] != exact[0]
    assert_close(rounded, solved(problem, "bfloat16"), 1e-3)
    assert_close(rounded, exact, 1e-2)


def test_pixels_that_stand_for_several():
    problem, times = example(n=40, p=9), torch.linspace(1, 3, 40)

    def loss_of():
        shared = (problem.own, problem.blocks, problem.weights)
        return contrast(problem.embedding.float(), problem.prototype.float(), *shared, stands_for=times)

    with mock.patch.object(fused_loss, "fits", lambda embedding, relations: True):
        ours = loss_of()
    torch.testing.assert_close(ours.loss, loss_of().loss, rtol=1e-5, atol=0)
    assert torch.equal(ours.without_positive, loss_of().without_positive)


def images(counts=(30, 0, 21, 17), segments=5, stands_for: bool = False) -> tuple[Pixels, Segments]:
    """Images of some valid pixels, each with its segments in two or three regions."""
    generator = torch.Generator().manual_seed(1)
    image = torch.cat([torch.full((n,), number) for number, n in enumerate(counts)])
    owners = [number for number, n in enumerate(counts) if n]
    of_segment = torch.tensor(owners).repeat_interleave(segments)
    first = torch.tensor([owners.index(number) * segments for number in image.tolist()])
    segment = first + torch.randint(segments, image.shape, generator=generator)
    vectors, prototypes = units(generator, len(image), 6), units(generator, len(of_segment), 6)
    region = torch.randint(3, of_segment.shape, generator=generator)
    nothing = torch.zeros(len(image), dtype=torch.int64)
    times = 1 + torch.rand(len(image), generator=generator) if stands_for else None
    box = torch.zeros(len(of_segment), 4)
    return (
        Pixels(vectors, vectors, nothing, nothing, segment, image, times),
        Segments(prototypes, prototypes, region, region, of_segment, box, box[:, 0]),
    )


@pytest.mark.parametrize("stands_for", [False, True])
def test_all_images_in_one_block_are_as_a_block_for_each(stands_for):
    pixels, segments = images(stands_for=stands_for)
    one = image_similarity.whole(pixels, segments, 16.0, 3.0, batch=4)
    each = image_similarity.blocks(pixels, segments, 16.0, 3.0)
    (block,), (rows, columns) = one, one[0].ranges
    for r, relation in enumerate(block.relations):
        named = relation.attract | relation.repel
        for i, group in enumerate(relation.group.tolist()):
            places = named[group].nonzero()[:, 0]
            assert rows[i].tolist() == [places.min(), places.max() + 1], r
    assert columns[0].tolist() == [0, 30] and columns[-1].tolist() == [51, 68]
    shape = dict(embedding=pixels.feature, prototype=segments.prototype_feature, own=pixels.segment)
    apart, together = (Problem(**shape, blocks=blocks, weights=(0.1,)) for blocks in (each, one))
    assert_close(together.solve(), apart.solve(), 1e-7)
    assert_close(fused(together), solved(apart), 1e-5)


@settings(deadline=None, max_examples=25)
@given(problems(), st.sampled_from([1, 1 << 12]))
def test_tiles_without_a_read_by_the_host_give_the_same(problem, tile):
    """The tiled version as a GPU runs it where the kernels do not fit."""
    expected = problem.solve()
    with mock.patch.multiple(loss, TILE=tile, _waits=lambda tensor: True):
        assert_close(problem.solve(), expected, 1e-12)


def test_a_relation_of_pixels_that_take_no_part():
    problem = example(n=20, p=9)
    (block,) = problem.blocks
    nobody = torch.full((20,), -1)
    silent = tuple(Relation(nobody, r.attract, r.repel, r.concentration) for r in block.relations)
    problem.blocks = [type(block)(block.rows, block.columns, silent, block.scale)]
    total, values, without, *grads = fused(problem)
    assert total == 0 and (values == 0).all() and without == [0, 0] and all((g == 0).all() for g in grads)
