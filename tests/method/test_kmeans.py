"""Spherical k-means of a batch against a loop over images, pixels and clusters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from spml_dist.method.kmeans import cluster, initial_grid, sums_of, unit


def reference(features, grid, iterations: int, valid=None) -> np.ndarray:
    """[h, w] cluster of each pixel of one image, features: [h, w, D] unit vectors."""
    h, w, _ = features.shape
    points = features.reshape(h * w, -1).double().numpy()
    takes_part = np.ones(h * w, bool) if valid is None else valid.reshape(-1).numpy()
    labels = np.unique(initial_grid(grid, h, w).numpy(), return_inverse=True)[1].reshape(-1)
    k = labels.max() + 1
    for _ in range(iterations):
        centres = np.zeros((k, points.shape[1]))
        for number in range(k):
            total = points[(labels == number) & takes_part].sum(axis=0)
            norm = np.linalg.norm(total)
            centres[number] = total / norm if norm > 0 else 0
        labels = np.array([np.argmax([p @ c for c in centres]) for p in points])
    return labels.reshape(h, w)


def images(seed: int, count: int, h: int, w: int, channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, h, w, channels, generator=generator, dtype=torch.float64), dim=-1)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.integers(2, 4)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 5),
    st.booleans(),
)
def test_every_image_is_clustered_as_the_loop_says(seed, shape, grid, iterations, some_invalid):
    features = images(seed, *shape)
    valid = torch.from_numpy(np.random.default_rng(seed).random(shape[:3]) < 0.6) if some_invalid else None
    ours = cluster(features, grid, iterations, valid)
    for i in range(len(features)):
        expected = reference(features[i], grid, iterations, None if valid is None else valid[i])
        assert np.array_equal(ours[i].numpy(), expected)


def test_a_batch_is_clustered_as_each_image_alone():
    features = images(3, 4, 24, 24, 10).float()
    valid = torch.rand(4, 24, 24, generator=torch.Generator().manual_seed(3)) < 0.9
    together = cluster(features, (6, 6), 10, valid)
    for i in range(4):
        alone = cluster(features[i : i + 1], (6, 6), 10, valid[i : i + 1])
        assert torch.equal(together[i : i + 1], alone)


def test_an_empty_cluster_wins_the_pixels_that_no_other_centre_is_near():
    """Pixel 2 starts alone in its cluster, takes no part, and points away from both other centres."""
    features = unit(torch.tensor([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0]])).reshape(1, 1, 3, 2)
    valid = torch.tensor([True, True, False]).reshape(1, 1, 3)
    assert cluster(features, (1, 3), 4, valid).flatten().tolist() == [0, 1, 2]
    assert cluster(features, (1, 3), 4).flatten().tolist() == [0, 1, 2]


def test_equally_empty_clusters_leave_a_pixel_to_the_smallest_number():
    features = unit(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])).reshape(1, 1, 4, 2)
    valid = torch.tensor([True, False, False, False]).reshape(1, 1, 4)
    assert cluster(features, (1, 4), 1, valid).flatten().tolist() == [0, 0, 0, 1]


def test_invalid_pixels_move_no_centre():
    features = images(5, 1, 6, 6, 3)
    valid = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(5)) < 0.5
    other = torch.where(valid[..., None], features, images(6, 1, 6, 6, 3))
    ours, theirs = cluster(features, (3, 3), 6, valid), cluster(other, (3, 3), 6, valid)
    assert torch.equal(ours[valid], theirs[valid])
    assert (cluster(features, (3, 3), 6) != ours)[valid].any(), "these pixels would have mattered"


@pytest.mark.parametrize(("count", "h", "w"), [(0, 4, 4), (2, 1, 1)])
def test_degenerate_batches(count, h, w):
    assert cluster(images(0, count, h, w, 3), (6, 6), 10).tolist() == np.zeros((count, h, w)).tolist()


def test_the_first_clusters_are_a_grid_numbered_down_the_columns():
    assert initial_grid((2, 3), 4, 6).tolist() == [
        [0, 0, 2, 2, 4, 4],
        [0, 0, 2, 2, 4, 4],
        [1, 1, 3, 3, 5, 5],
        [1, 1, 3, 3, 5, 5],
    ]


def test_cells_at_the_border_are_half_as_large_and_halves_round_to_even():
    assert initial_grid((3, 1), 9, 1)[:, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert initial_grid((3, 1), 5, 1)[:, 0].tolist() == [0, 0, 1, 2, 2]


def test_a_finer_grid_than_the_image_starts_with_a_cluster_for_each_pixel():
    assert cluster(images(2, 1, 2, 3, 8), (6, 6), 1)[0].unique().tolist() == [0, 1, 2, 3, 4, 5]


def test_clustering_leaves_no_trace_on_the_tape():
    features = images(1, 1, 4, 4, 3).requires_grad_()
    assert not cluster(features, (2, 2), 3).requires_grad


def test_unit_vectors():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert unit(vectors).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]
    torch.testing.assert_close(unit(vectors.T, dim=0), unit(vectors).T)


def test_sums_by_a_product_are_those_of_the_members():
    """What a GPU takes in the place of adding point by point."""
    generator = torch.Generator().manual_seed(2)
    points = torch.randn(2, 30, 5, generator=generator, dtype=torch.float64)
    labels, valid = (torch.randint(0, high, (2, 30), generator=generator) for high in (7, 2))
    for takes_part in (None, valid.bool()):
        ours = sums_of(points, labels, 7, takes_part)
        for image, cluster_number in np.ndindex(2, 7):
            member = labels[image] == cluster_number
            member &= True if takes_part is None else takes_part[image]
            torch.testing.assert_close(ours[image, cluster_number], points[image, member].sum(dim=0))
