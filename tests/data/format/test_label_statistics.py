"""Counting what annotations amount to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spml_dist.data.format.label_statistics import LabelStatistics
from spml_dist.data.format.manifest import NAMED, sum_counts
from spml_dist.errors import DataError
from tests.data.conftest import samples


def tally_of(*counted) -> LabelStatistics:
    tally = LabelStatistics(3)
    for sample in counted:
        tally.add(sample)
    return tally


def test_a_promised_class_without_a_pixel_and_a_class_that_the_list_leaves_out():
    sample = replace(samples(2)[1], tags=(1, 2), unlisted=(2,), contradicted=4, kinds=("lines", "tags"))
    counts = tally_of(sample).counts()
    assert (sample.semantic == 2).any() and not (sample.semantic == 1).any()
    assert counts.images_unseen == (0, 1, 0)
    sample.semantic[0, 0] = 1
    assert tally_of(sample).counts().images_unseen == (0, 0, 0)
    assert counts.images_unlisted == (0, 0, 1)
    assert (counts.named_unseen, counts.named_unlisted) == (((), ("image-1",), ()), ((), (), ("image-1",)))
    assert counts.pixels_contradicted == 4
    assert counts.kinds == {"lines": 1, "tags": 1}


def test_the_counts_of_parts_add_up_to_those_of_the_whole():
    kinds, tags = [("lines",), (), ("boxes", "lines"), ()], [None, None, (), (1,)]
    every = [
        replace(sample, kinds=kind, tags=known)
        for sample, kind, known in zip(samples(4), kinds, tags, strict=True)
    ]
    assert [tally_of(each).counts().images_of_no_kind for each in every] == [0, 1, 0, 1]
    assert (
        sum_counts([tally_of(*every[:1]).counts(), tally_of(*every[1:]).counts()])
        == tally_of(*every).counts()
    )


def test_the_first_images_of_a_class_are_named_by_their_ids_across_parts():
    sample = replace(samples(2)[1], tags=(1,))
    every = [tally_of(replace(sample, key=f"image%2E{number:02}")) for number in range(12)]
    counts = sum_counts([each.counts() for each in every])
    assert counts.images_unseen == (0, 12, 0)
    assert counts.named_unseen[1] == tuple(f"image.{number:02}" for number in range(NAMED))


def test_a_key_that_comes_twice_is_refused():
    sample = samples(1)[0]
    with pytest.raises(DataError, match="image-0: two samples of one key"):
        tally_of(sample, sample)
