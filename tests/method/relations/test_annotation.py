"""Semantic annotation: labelled pixels and segments, by class."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.method.relations.annotation import relation
from spml_dist.records import UNLABELLED, Candidates, Pixels

CLASSES = 4
labels = st.lists(st.sampled_from([*range(CLASSES), UNLABELLED]), max_size=12)


def pixels_of(semantic) -> Pixels:
    n = len(semantic)
    nothing = torch.zeros(n, dtype=torch.int64)
    return Pixels(torch.zeros(n, 2), torch.zeros(n, 4), torch.tensor(semantic).long(), *[nothing] * 3)


def rows_of(semantic) -> Candidates:
    p = len(semantic)
    return Candidates(
        prototype=torch.zeros(p, 2),
        semantic=torch.tensor(semantic).long(),
        tags=torch.zeros(p, CLASSES, dtype=torch.bool),
        tags_known=torch.zeros(p, dtype=torch.bool),
        image=torch.zeros(p, dtype=torch.int64),
        propagated=torch.zeros(p, dtype=torch.int64),
    )


@settings(deadline=None)
@given(labels, labels)
def test_same_class_attracts_another_class_repels_unlabelled_takes_no_part(of_pixels, of_candidates):
    ours = relation(pixels_of(of_pixels), rows_of(of_candidates), CLASSES, 6.0)
    for i, mine in enumerate(of_pixels):
        group = int(ours.group[i])
        if mine == UNLABELLED:
            assert group == -1
            continue
        for t, theirs in enumerate(of_candidates):
            assert bool(ours.attract[group, t]) == (theirs == mine)
            assert bool(ours.repel[group, t]) == (theirs != mine and theirs != UNLABELLED)


def test_background_is_a_class_like_any_other():
    ours = relation(pixels_of([0]), rows_of([0, 1]), CLASSES, 6.0)
    assert ours.attract[ours.group[0]].tolist() == [True, False]


def test_the_concentration_is_passed_on_and_own_never_repels():
    ours = relation(pixels_of([0]), rows_of([0]), CLASSES, 7.5)
    assert (ours.concentration, ours.own_repels) == (7.5, False)
