"""Several kinds of annotation of one image."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spml_dist.data.annotations.mixture import ImageLabels, merge_boxes, merge_labels, merge_tags, unlisted

SHAPE = (3, 4)
maps = arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, 254, 255]))
classes = st.none() | st.lists(st.integers(0, 4), unique=True, max_size=3).map(tuple)
mixtures = st.lists(
    st.builds(ImageLabels, semantic=st.none() | maps, shown=classes, listed=classes), max_size=4
)


def by_definition(kinds: list[ImageLabels]) -> tuple[np.ndarray | None, int]:
    """Pixel by pixel: the first that is not unlabelled; and whether two name different classes."""
    given_maps = [each.semantic for each in kinds if each.semantic is not None]
    if not given_maps:
        return None, 0
    semantic, contradicted = np.full(SHAPE, 254), 0
    for y in range(SHAPE[0]):
        for x in range(SHAPE[1]):
            values = [int(each[y, x]) for each in given_maps]
            semantic[y, x] = next((value for value in values if value != 254), 254)
            contradicted += len({value for value in values if value < 254}) > 1
    return semantic, contradicted


@given(mixtures)
def test_the_first_to_say_something_decides_and_contradictions_are_counted(kinds):
    before = [None if each.semantic is None else each.semantic.copy() for each in kinds]
    semantic, contradicted = merge_labels(kinds)
    expected, count = by_definition(kinds)
    assert contradicted == count and (semantic is None) == (expected is None)
    assert semantic is None or (np.array_equal(semantic, expected) and semantic.dtype == np.uint8)
    assert all(
        one is None or np.array_equal(one, each.semantic) for one, each in zip(before, kinds, strict=True)
    )


@given(mixtures)
def test_tags_are_all_that_is_listed_or_shown_and_unknown_where_nothing_is(kinds):
    outcome = [tags for each in kinds for tags in (each.listed, each.shown) if tags is not None]
    tags = merge_tags(kinds)
    assert (tags is None) == (not outcome)
    assert tags is None or list(tags) == sorted({tag for each in outcome for tag in each})


def test_an_ignored_pixel_is_decided_and_contradicts_nothing():
    ignored, one, two = (np.full((1, 1), value, np.uint8) for value in (255, 1, 2))
    assert merge_labels([ImageLabels(ignored), ImageLabels(one)])[0].item() == 255
    assert (
        merge_labels([ImageLabels(ignored), ImageLabels(one)])[1]
        == merge_labels([ImageLabels(one), ImageLabels(ignored)])[1]
        == 0
    )
    assert merge_labels([ImageLabels(ignored), ImageLabels(one), ImageLabels(two)])[1] == 1


def test_implied_background_says_nothing_inside_a_box_of_any_kind():
    background, two = np.zeros(SHAPE, np.uint8), np.full(SHAPE, 2, np.uint8)
    implied = ImageLabels(background, implied=np.arange(12).reshape(SHAPE) != 1)
    box = ImageLabels(np.full(SHAPE, 254, np.uint8), boxes=((1, 0.0, 0.0, 2.0, 2.0),))
    for kinds in ([implied, box], [box, implied]):
        semantic, contradicted = merge_labels(kinds)
        assert semantic.tolist() == [[254, 0, 0, 0], [254, 254, 0, 0], [0, 0, 0, 0]] and contradicted == 0
    semantic, contradicted = merge_labels([implied, box, ImageLabels(two)])
    assert (semantic == 2).sum() == 3 and contradicted == 9


def test_only_a_list_of_tags_can_leave_a_class_out():
    assert unlisted([ImageLabels(shown=(1, 2))]) == ()
    assert unlisted([ImageLabels(shown=(1, 2)), ImageLabels(listed=(2, 3)), ImageLabels(shown=(4,))]) == (
        1,
        4,
    )
    assert unlisted([ImageLabels(shown=(1,)), ImageLabels(listed=())]) == (1,)


def test_boxes_of_all_kinds_go_along_and_none_differs_from_no_box():
    one, two = (1, 0.0, 0.0, 2.0, 2.0), (2, 1.0, 1.0, 2.0, 2.0)
    assert merge_boxes([ImageLabels(boxes=(one,)), ImageLabels(), ImageLabels(boxes=(two,))]) == (one, two)
    assert merge_boxes([ImageLabels(boxes=())]) == () and merge_boxes([ImageLabels()]) is None
