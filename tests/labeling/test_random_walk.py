"""Random walks: transitions are shares, walks are powers, seeds are what they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.labeling import random_walk

GRIDS = st.tuples(st.integers(1, 4), st.integers(1, 4))
SEEDS = st.integers(0, 10_000)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def step_of(grid: tuple[int, int], seed: int) -> torch.Tensor:
    return random_walk.transition(random_walk.affinity(noise(2, 5, *grid, seed=seed), grid))


def test_affinity_is_the_mean_over_the_views_of_an_exponential_of_the_cosine():
    embedding = noise(2, 3, 2, 3)
    expected = np.zeros((6, 6))
    for view in embedding.flatten(2).numpy():
        for i in range(6):
            for j in range(6):
                cosine = view[:, i] @ view[:, j] / np.linalg.norm(view[:, i]) / np.linalg.norm(view[:, j])
                expected[i, j] += np.exp(5 * (cosine - 1)) / 2
    np.testing.assert_allclose(random_walk.affinity(embedding, (2, 3)), expected)


@settings(deadline=None, max_examples=30)
@given(grid=GRIDS, seed=SEEDS, scale=st.floats(0.1, 10))
def test_affinity_is_symmetric_one_on_the_diagonal_and_blind_to_length(grid, seed, scale):
    embedding = noise(2, 4, *grid, seed=seed)
    alike = random_walk.affinity(embedding, grid)
    torch.testing.assert_close(alike, alike.T)
    torch.testing.assert_close(alike.diagonal(), torch.ones(len(alike), dtype=alike.dtype))
    assert ((alike > 0) & (alike <= 1 + 1e-12)).all()
    torch.testing.assert_close(random_walk.affinity(scale * embedding, grid), alike)


def test_affinity_lies_on_the_grid_that_is_asked_for():
    embedding = noise(1, 3, 16, 24)
    alike = random_walk.affinity(embedding, (2, 3))
    torch.testing.assert_close(
        alike, random_walk.affinity(random_walk.resize(embedding, (2, 3)), (2, 3)), rtol=0, atol=0
    )
    assert alike.shape == (6, 6)


@settings(deadline=None, max_examples=30)
@given(grid=GRIDS, seed=SEEDS)
def test_the_columns_of_a_transition_sum_to_one(grid, seed):
    step = step_of(grid, seed)
    assert (step > 0).all()
    torch.testing.assert_close(step.sum(dim=0), torch.ones(len(step), dtype=step.dtype))


def test_a_transition_is_a_power_of_affinities_over_its_column_sums():
    alike = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    step = random_walk.transition(torch.tensor([[1.0, 0.5], [0.25, 1.0]]), sharpness=2)
    torch.testing.assert_close(step, torch.tensor([[16 / 17, 0.2], [1 / 17, 0.8]]))
    torch.testing.assert_close(random_walk.transition(alike, 1e3), torch.eye(2))


@settings(deadline=None, max_examples=30)
@given(grid=GRIDS, seed=SEEDS, steps=st.integers(0, 64))
def test_a_walk_is_a_power_of_its_transition(grid, seed, steps):
    step, seeds = step_of(grid, seed), noise(3, *grid, seed=seed + 1)
    power = np.linalg.matrix_power(step.numpy(), steps)
    expected = (seeds.flatten(1).numpy() @ power).reshape(seeds.shape)
    np.testing.assert_allclose(random_walk.walk(seeds, step, steps), expected, rtol=1e-10, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(grid=GRIDS, seed=SEEDS)
def test_a_walk_stays_in_the_range_of_its_seeds_and_keeps_what_sums_to_one(grid, seed):
    seeds = noise(4, *grid, seed=seed).softmax(dim=0)
    walked = random_walk.walk(seeds, step_of(grid, seed))
    for before, after in zip(seeds, walked, strict=True):
        assert before.min() - 1e-12 <= after.min() and after.max() <= before.max() + 1e-12
    torch.testing.assert_close(walked.sum(dim=0), torch.ones(grid, dtype=walked.dtype))


def test_a_walk_takes_64_steps():
    step, seeds = step_of((2, 3), 0), noise(2, 2, 3)
    torch.testing.assert_close(
        random_walk.walk(seeds, step), random_walk.walk(seeds, step, 64), rtol=0, atol=0
    )


def test_a_seed_spreads_over_what_looks_like_it_and_no_further():
    """Two halves with opposite embeddings, one labelled cell in each: the walk labels the halves."""
    embedding = torch.ones(1, 1, 4, 6)
    embedding[..., 3:] = -1
    step = random_walk.transition(random_walk.affinity(embedding, (4, 6)))
    seeds = torch.zeros(2, 4, 6)
    seeds[0, 0, 0] = seeds[1, 3, 5] = 1
    labels = random_walk.walk(seeds, step).argmax(dim=0)
    assert (labels[:, :3] == 0).all() and (labels[:, 3:] == 1).all()


def test_probabilities_are_averaged_over_the_views():
    logits = noise(2, 4, 3, 5)
    expected = (logits[0].softmax(0) + logits[1].softmax(0)) / 2
    torch.testing.assert_close(random_walk.mean_softmax(logits, (3, 5)), expected)


def test_seeds_of_present_classes_reach_one_and_absent_ones_are_zero():
    probability = noise(4, 3, 5).softmax(dim=0)
    seeds = random_walk.softmax_seeds(probability, torch.tensor([True, False, True, False]))
    assert seeds.amax(dim=(1, 2)).tolist() == [1, 0, 1, 0]
    torch.testing.assert_close(seeds[2] * probability[2].max(), probability[2])
    assert random_walk.softmax_seeds(torch.zeros(1, 2, 2), torch.tensor([True])).tolist() == [
        [[0, 0], [0, 0]]
    ]


def test_activation_maps_stand_at_their_classes_and_the_background_is_what_they_leave():
    cams = torch.tensor([[[0.5, 0.0]], [[0.2, 1.0]]])
    seeds = random_walk.cam_seeds(cams, torch.tensor([3, 1]), num_classes=5)
    torch.testing.assert_close(seeds[:, 0], torch.tensor([[0.5**6, 0], [0.2, 1], [0, 0], [0.5, 0], [0, 0]]))


def test_an_image_without_activation_is_background():
    seeds = random_walk.cam_seeds(torch.zeros(0, 2, 2), torch.zeros(0, dtype=torch.long), num_classes=3)
    assert (seeds[0] == 1).all() and (seeds[1:] == 0).all()


@pytest.mark.parametrize("shape", [(3, 8, 12), (2, 3, 8, 12), (1, 1, 8, 12)])
def test_maps_are_resized_with_whatever_stands_before_them(shape):
    small = random_walk.resize(torch.ones(shape), (2, 3))
    assert small.shape == (*shape[:-2], 2, 3) and (small == 1).all()


@settings(deadline=None, max_examples=30)
@given(grid=GRIDS, seed=SEEDS, memory=st.integers(1, 4000), views=st.integers(1, 2))
def test_in_blocks_a_walk_is_the_same_whatever_fits_into_memory(grid, seed, memory, views):
    embedding, seeds = noise(views, 5, *grid, seed=seed), noise(3, *grid, seed=seed + 1).softmax(dim=0)
    step = random_walk.transition(random_walk.affinity(embedding, grid))
    found = random_walk.walk_in_blocks(seeds, embedding, memory)
    torch.testing.assert_close(found, random_walk.walk(seeds, step), rtol=0, atol=1e-5)


def test_single_precision_in_blocks_stays_within_1e_5():
    embedding, seeds = noise(2, 16, 20, 30).float(), noise(4, 20, 30, seed=1).softmax(dim=0).float()
    step = random_walk.transition(random_walk.affinity(embedding, (20, 30)))
    found = random_walk.walk_in_blocks(seeds, embedding, memory=1_000_000)
    torch.testing.assert_close(found, random_walk.walk(seeds, step), rtol=0, atol=1e-5)
