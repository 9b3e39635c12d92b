"""Semantic co-occurrence: images that share a tag attract, images that share none repel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spml_dist.method.relations.cooccurrence import relation
from spml_dist.records import Candidates, Pixels

CLASSES = 5
tag_sets = st.none() | st.sets(st.integers(0, CLASSES - 1), max_size=3)
"""None: unknown; empty: known to hold no class"""


def bits(sets):
    tags = torch.tensor([[c in (s or ()) for c in range(CLASSES)] for s in sets], dtype=torch.bool)
    return tags.reshape(len(sets), CLASSES), torch.tensor([s is not None for s in sets], dtype=torch.bool)


def related(images, candidates, pixel_image, ignored=(), own_repels=False, of=None, own=None, in_bank=None):
    """of: number of each candidate's image."""
    n, p = len(pixel_image), len(candidates)
    nothing = torch.zeros(n, dtype=torch.int64)
    image = torch.tensor(pixel_image, dtype=torch.int64)
    pixels = Pixels(torch.zeros(n, 2), torch.zeros(n, 4), nothing, nothing, nothing, image)
    empty = torch.zeros(p, dtype=torch.int64)
    number = empty if of is None else torch.tensor(of)
    rows = Candidates(torch.zeros(p, 2), empty, *bits(candidates), number, empty)
    own, in_bank = (None if each is None else torch.tensor(each) for each in (own, in_bank))
    return relation(pixels, *bits(images), rows, 12.0, ignored, own_repels, own, in_bank)


@settings(deadline=None)
@given(
    st.lists(tag_sets, min_size=1, max_size=4),
    st.lists(tag_sets, max_size=8),
    st.sets(st.integers(0, CLASSES - 1), max_size=3),
)
def test_as_the_sets_say(images, candidates, ignored):
    ours = related(images, candidates, list(range(len(images))), tuple(ignored))
    for i, mine in enumerate(images):
        group = int(ours.group[i])
        if mine is None:
            assert group == -1
            continue
        for t, theirs in enumerate(candidates):
            shared = bool(theirs is not None and (mine - ignored) & (theirs - ignored))
            assert bool(ours.attract[group, t]) == shared
            assert bool(ours.repel[group, t]) == (theirs is not None and not shared)


def test_unknown_tags_are_not_no_tags():
    ours = related([{1}, None, set()], [{1}, {2}, None, set()], [0, 1, 2])
    assert ours.group.tolist() == [0, -1, 2]
    assert ours.attract[[0, 2]].tolist() == [[True, False, False, False], [False] * 4]
    assert ours.repel[[0, 2]].tolist() == [[False, True, False, True], [True, True, False, True]]


def test_what_every_image_shows_says_nothing():
    ours = related([{0, 1}, {0}], [{0, 1}, {0, 2}, {0}], [0, 1], ignored=(0,))
    assert ours.attract.tolist() == [[True, False, False], [False, False, False]]
    assert ours.repel.tolist() == [[False, True, True], [True, True, True]]


def test_pixels_belong_to_the_group_of_their_image():
    ours = related([{1}, {2}], [{1}], [0, 0, 1])
    assert ours.group[0] == ours.group[1] != ours.group[2]
    assert ours.attract[ours.group].flatten().tolist() == [True, True, False]


@pytest.mark.parametrize("own_repels", [False, True])
def test_the_release_lets_the_own_segment_repel(own_repels):
    ours = related([set()], [set()], [0], own_repels=own_repels)
    assert (ours.concentration, ours.own_repels) == (12.0, own_repels)


class TestWithoutTheOwnImage:
    """Image 7 shows class 1, image 8 classes 1 and 2, image 9 class 3: two segments of each."""

    ROWS = ([{1}, {1}, {1, 2}, {1, 2}, {3}, {3}], [0, 1, 2])
    OF, OWN = [7, 7, 8, 8, 9, 9], [7, 8, 9]

    def seen(self, **changes):
        return related([{1}, {1, 2}, {3}], *self.ROWS, of=self.OF, **changes)

    def test_it_leaves_where_another_image_shares_a_tag(self):
        attract = self.seen(own=self.OWN).attract
        assert attract[0].tolist() == [False, False, True, True, False, False]
        assert attract[1].tolist() == [True, True, False, False, False, False]

    def test_it_stays_where_none_does(self):
        assert self.seen(own=self.OWN).attract[2].tolist() == [False] * 4 + [True] * 2

    def test_nor_does_it_stay_where_the_bank_has_another(self):
        assert not self.seen(own=self.OWN, in_bank=[0, 0, 5]).attract[2].any()

    def test_who_repels_stays(self):
        assert torch.equal(self.seen(own=self.OWN).repel, self.seen().repel)


def test_no_images_and_no_candidates():
    assert related([], [{1}], []).attract.shape == (0, 1)
    assert related([{1}], [], [0]).repel.shape == (1, 0)
