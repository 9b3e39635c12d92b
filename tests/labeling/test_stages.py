"""Which labelers `--by` means, for packs of all kinds of annotation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spml_dist.data.format.manifest import LabelCounts, Manifest
from spml_dist.errors import ConfigError, DataError
from spml_dist.labeling.stages import Stage, stages

COUNTS = LabelCounts(3, 1, 0, 9, (4, 5), (0, 2))
PACK = Manifest("a", "train", "", ("ground", "cat"), 0, 4, COUNTS, ())


def pack(*kinds: str) -> Manifest:
    return replace(PACK, counts=replace(COUNTS, kinds=dict.fromkeys(kinds, 1)))


WALK, NEIGHBOURS = Stage("walk", "walk", None), Stage("neighbours", None, "neighbours")


@pytest.mark.parametrize(
    ("kinds", "with_cam", "expected"),
    [
        (("scribbles",), False, [WALK]),
        (("boxes",), True, [WALK]),
        (("tags", "cam"), False, [NEIGHBOURS]),
        (("tags",), True, [Stage("cam-walk", None, "cam-walk"), NEIGHBOURS]),
        (("points", "tags"), False, [WALK, NEIGHBOURS]),
        (("points", "tags"), True, [Stage("walk", "walk", "cam-walk"), NEIGHBOURS]),
        ((), False, [WALK]),
    ],
)
def test_by_itself_it_follows_the_labels(kinds, with_cam, expected):
    assert stages("auto", pack(*kinds), with_cam) == expected


@pytest.mark.parametrize(
    ("kinds", "unlabelled", "expected"),
    [
        ({"boxes": 4, "tags": 4, "cam": 4}, 0, [WALK]),
        ({"scribbles": 4, "tags": 4}, 0, [WALK]),
        ({"scribbles": 4, "tags": 4}, 1, [Stage("walk", "walk", "cam-walk"), NEIGHBOURS]),
    ],
)
def test_tags_want_stages_of_their_own_where_an_image_may_have_nothing_else(kinds, unlabelled, expected):
    """A map of scribbles may be empty, a list of boxes may not."""
    counts = replace(COUNTS, kinds=kinds, images_unlabelled=unlabelled)
    assert stages("auto", replace(PACK, counts=counts), True) == expected


def test_named_labelers_label_all_images_one_after_the_other():
    expected = [Stage("walk", "walk", "walk"), Stage("neighbours", "neighbours", "neighbours")]
    assert stages("walk+neighbours", pack("tags"), False) == expected
    assert stages("cam-walk", pack("tags"), True) == [Stage("cam-walk", None, "cam-walk")]


def test_kinds_of_a_stage_are_its_labelers():
    assert Stage("walk", "walk", "cam-walk").kinds == ("walk", "cam-walk")
    assert NEIGHBOURS.kinds == ("neighbours",)


@pytest.mark.parametrize(
    ("by", "seen"),
    [
        ("wlak", r"--by \(got wlak\); use auto, or some of cam, walk"),
        ("walk+", r"--by"),
        ("walk+walk", "name each labeler once"),
        ("cam+neighbours", r"name a run of `spml-dist cam train` by --cam"),
    ],
)
def test_what_cannot_be_is_named(by, seen):
    with pytest.raises(ConfigError, match=seen):
        stages(by, pack("tags"), False)


def test_a_pack_that_nobody_annotated_is_refused():
    bare = replace(PACK, counts=LabelCounts(0, 4, 4, 9, (0, 0), (0, 0)))
    with pytest.raises(DataError, match="no image is annotated"):
        stages("auto", bare, False)
