"""A few pixels of each segment stand for all of it."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from spml_dist.method.loss import contrast
from spml_dist.method.pixel_sampling import sample_pixels
from spml_dist.records import Pixels
from spml_dist.tensor_records import take
from tests.method.test_loss import example

IMAGES, SEGMENTS = 3, 9


def pixels(n: int = 200, seed: int = 0) -> Pixels:
    """Image-major pixels; segments 0..2 lie in the first image, 3..5 in the second, 6..8 in the third."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, IMAGES, (n,), generator=generator).sort().values
    segment = 3 * image + torch.randint(0, 3, (n,), generator=generator)
    vector = normalize(torch.randn(n, 4, generator=generator), dim=1)
    return Pixels(vector, vector, image, image, segment, image)


def drawn(of: Pixels, most: int, step: int = 0, position=None, seed: int = 0) -> Pixels:
    position = torch.arange(IMAGES) if position is None else position
    return sample_pixels(of, len(of.segment.unique()), most, position, seed, step)


def test_each_segment_keeps_so_many_pixels_which_count_for_all_of_it():
    everything = pixels()
    few = drawn(everything, 4)
    assert torch.bincount(few.segment).tolist() == [4] * SEGMENTS
    total = torch.zeros(SEGMENTS).index_add(0, few.segment, few.stands_for)
    torch.testing.assert_close(total, torch.bincount(everything.segment).float())


def test_a_small_segment_is_whole_and_the_order_stays():
    everything = pixels()
    whole = drawn(everything, 1000)
    assert (whole.stands_for == 1).all()
    assert torch.equal(whole.embedding, everything.embedding)
    few = drawn(everything, 3)
    assert (few.image.diff() >= 0).all()
    place = [(everything.embedding == row).all(dim=1).nonzero().item() for row in few.embedding]
    assert place == sorted(place)


def test_every_pixel_has_the_same_chance():
    everything = pixels(60)
    share = torch.zeros(60)
    for step in range(3000):
        few = drawn(everything, 2, step)
        rows = torch.cdist(few.embedding, everything.embedding).argmin(dim=1)
        share[rows] += few.stands_for / 3000
    # The deviation of a share is at most sqrt((9 / 2 - 1) / 3000) = 0.034.
    assert (share - 1).abs().max() < 0.15


def test_the_draw_is_the_images_own_wherever_it_is_computed():
    everything = pixels()
    together = drawn(everything, 2, step=7)
    for image in range(IMAGES):
        alone = take(everything, everything.image == image)
        alone = Pixels(**{**vars(alone), "image": alone.image * 0})
        ours = drawn(alone, 2, step=7, position=torch.tensor([image]))
        assert torch.equal(ours.embedding, together.embedding[together.image == image])
    assert not torch.equal(together.embedding, drawn(everything, 2, step=8).embedding)
    assert not torch.equal(together.embedding, drawn(everything, 2, step=7, seed=1).embedding)


def test_no_pixels_at_all():
    assert len(drawn(take(pixels(), slice(0)), 2).segment) == 0


def test_who_is_not_drawn_stands_for_none_where_small_segments_leave_room():
    """Two of each segment are asked for, and one has a single pixel."""
    everything = pixels()
    alone = (everything.segment == 4).nonzero()[0]
    others = (everything.segment != 4).nonzero()[:, 0]
    everything = take(everything, torch.cat([others, alone]).sort().values)
    few = drawn(everything, 2)
    counted = few.stands_for > 0
    assert len(counted) == 2 * SEGMENTS and counted.sum() == 2 * SEGMENTS - 1
    assert torch.bincount(few.segment[counted]).tolist() == [2, 2, 2, 2, 1, 2, 2, 2, 2]
    total = torch.zeros(SEGMENTS).index_add(0, few.segment, few.stands_for)
    torch.testing.assert_close(total, torch.bincount(everything.segment).float())


def test_a_pixel_that_stands_for_none_changes_nothing():
    problem = example(n=20)
    counted = torch.arange(20) % 4 > 0
    answers = []
    for turn in range(2):
        embedding = problem.embedding.clone()
        embedding[~counted] = embedding[~counted].roll(turn, dims=1)
        embedding.requires_grad_()
        shared = problem.prototype, problem.own, problem.blocks, problem.weights
        done = contrast(embedding, *shared, stands_for=counted.double())
        done.loss.backward()
        assert not embedding.grad[~counted].any() and embedding.grad[counted].any()
        answers.append((done.loss.detach(), done.values, done.without_positive, embedding.grad))
    assert all(map(torch.equal, *answers))


def test_a_pixel_that_stands_for_three_is_three_pixels():
    """Loss, values, pixels without positive and gradients: weights against repeated rows."""
    problem, times = example(n=20), torch.arange(20) % 3 + 1
    rows = torch.arange(20).repeat_interleave(times)
    relations = [r for block in problem.blocks for r in block.relations]
    repeated = [type(r)(**{**vars(r), "group": r.group[rows]}) for r in relations]
    block = problem.blocks[0]
    longer = type(block)(slice(0, len(rows)), block.columns, tuple(repeated), block.scale)
    few, many = (problem.embedding.clone().requires_grad_() for _ in range(2))
    once = contrast(
        few, problem.prototype, problem.own, problem.blocks, problem.weights, stands_for=times.double()
    )
    over = contrast(many[rows], problem.prototype, problem.own[rows], [longer], problem.weights)
    once.loss.backward(), over.loss.backward()
    torch.testing.assert_close(once.values, over.values, rtol=1e-12, atol=0)
    torch.testing.assert_close(few.grad, many.grad, rtol=1e-10, atol=1e-14)
    assert torch.equal(once.without_positive, over.without_positive)
