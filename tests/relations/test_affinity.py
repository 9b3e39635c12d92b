"""Feature affinity: unlabelled segments take the class of the nearest labelled one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from spml_dist.relations import affinity
from spml_dist.relations.affinity import counted, propagate, relation
from spml_dist.schema import UNLABELLED, Pixels, Rows

CLASSES = 4
labels = st.lists(st.sampled_from([*range(CLASSES), UNLABELLED]), max_size=12)


def segments(seed: int, count: int = 30, images: int = 3):
    """Unit vectors, labels (half of them 254) and images of some segments."""
    generator = torch.Generator().manual_seed(seed)
    vectors = normalize(torch.randn(count, 3, generator=generator, dtype=torch.float64), dim=1)
    semantic = torch.randint(0, 2 * CLASSES, (count,), generator=generator)
    semantic = torch.where(semantic < CLASSES, semantic, UNLABELLED)
    return vectors, semantic, torch.randint(0, images, (count,), generator=generator)


def slow(vectors, semantic, image, least: float, within: bool) -> list[int]:
    found = []
    for i in range(len(vectors)):
        near = [
            (float(vectors[i] @ vectors[t]), int(semantic[t]))
            for t in range(len(vectors))
            if semantic[t] < CLASSES and (not within or image[i] == image[t])
        ]
        best = max(near, default=(-2.0, UNLABELLED))
        found.append(
            int(semantic[i]) if semantic[i] < CLASSES else best[1] if best[0] >= least else UNLABELLED
        )
    return found


def propagated(vectors, semantic, image, least, within):
    known = semantic < CLASSES
    images = (image, image[known]) if within else None
    return propagate(vectors, semantic, vectors[known], semantic[known], CLASSES, least, images)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([-1.0, 0.5, 0.95, 1.0]), st.booleans(), st.integers(1, 200))
def test_the_class_is_that_of_the_nearest_labelled_segment_if_it_is_near_enough(seed, least, within, tile):
    vectors, semantic, image = segments(seed)
    whole, affinity.TILE = affinity.TILE, tile
    try:
        ours = propagated(vectors, semantic, image, least, within)
    finally:
        affinity.TILE = whole
    assert ours.tolist() == slow(vectors, semantic, image, least, within)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.booleans())
def test_the_order_of_the_segments_does_not_matter(seed, within):
    """Not even where two classes are equally near."""
    vectors, semantic, image = segments(seed)
    vectors = torch.cat([vectors, vectors])
    semantic = torch.cat([semantic, torch.where(semantic < CLASSES, (semantic + 1) % CLASSES, UNLABELLED)])
    image = torch.cat([image, image])
    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))
    ours = propagated(vectors, semantic, image, 0.0, within)
    assert torch.equal(propagated(vectors[order], semantic[order], image[order], 0.0, within), ours[order])


def test_a_labelled_segment_keeps_its_own_class_at_any_threshold():
    vectors = normalize(torch.randn(50, 37, generator=torch.Generator().manual_seed(0)), dim=1)
    semantic = torch.arange(50) % CLASSES
    ours = propagated(vectors, semantic, torch.zeros(50), 1.0, False)
    assert torch.equal(ours, semantic)


def test_without_labels_nothing_has_a_class():
    vectors, _, image = segments(0)
    nobody = torch.full((30,), UNLABELLED)
    assert (propagated(vectors, nobody, image, -1.0, False) == UNLABELLED).all()
    assert propagated(vectors[:0], nobody[:0], image[:0], -1.0, False).shape == (0,)


def pixels_of(segment) -> Pixels:
    n, nothing = len(segment), torch.zeros(len(segment), dtype=torch.int64)
    own = torch.tensor(segment, dtype=torch.int64)
    return Pixels(torch.zeros(n, 2), torch.zeros(n, 4), nothing, nothing, own, nothing)


def rows_of(classes) -> Rows:
    p = len(classes)
    nothing = torch.zeros(p, dtype=torch.int64)
    tags = torch.zeros(p, CLASSES, dtype=torch.bool)
    known = torch.zeros(p, dtype=torch.bool)
    return Rows(torch.zeros(p, 2), nothing, tags, known, nothing, torch.tensor(classes, dtype=torch.int64))


@settings(deadline=None)
@given(labels, labels, st.sampled_from(["image", "batch"]))
def test_one_class_attracts_another_repels_and_the_unknown_do_as_the_scope_says(own, others, scope):
    pixels = pixels_of(range(len(own)))
    ours = relation(pixels, torch.tensor(own, dtype=torch.int64), rows_of(others), CLASSES, 12.0, scope)
    assert (ours.concentration, ours.own_repels) == (12.0, False)
    for i, mine in enumerate(own):
        group = int(ours.group[i])
        assert (group == -1) == (mine == UNLABELLED)
        for t, theirs in enumerate(others if group >= 0 else ()):
            attracts = theirs == mine or (scope == "image" and theirs == UNLABELLED)
            assert bool(ours.attract[group, t]) == attracts
            assert bool(ours.repel[group, t]) == (theirs != mine and theirs != UNLABELLED)


@pytest.mark.parametrize(("scope", "expected"), [("image", 5), ("batch", 3)])
def test_pixels_of_unknown_segments_count_where_the_release_counts_them(scope, expected):
    pixels = pixels_of([0, 1, 1, 2, 0])
    assert int(counted(pixels, torch.tensor([UNLABELLED, 3, 0]), CLASSES, scope)) == expected
