"""Seeds from boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spml_dist.data.annotations.boxes import box_labels, checked_boxes, core_labels
from spml_dist.errors import ConfigError, DataError

SHAPE = (24, 32)
CORNER = st.floats(-8, 40)
BOXES = st.lists(
    st.tuples(st.integers(1, 5), CORNER, CORNER, st.floats(0, 40), st.floats(0, 40)).map(
        lambda box: (box[0], box[1], box[2], box[1] + box[3], box[2] + box[4])
    ),
    max_size=5,
)


def test_the_middle_is_labelled_the_rest_of_the_box_is_not_and_outside_is_background():
    semantic = core_labels([(3, 4, 2, 24, 22)], SHAPE, 0, core=0.25)
    expected = np.zeros(SHAPE)
    expected[2:22, 4:24] = 254
    expected[7:17, 9:19] = 3
    assert np.array_equal(semantic, expected) and semantic.dtype == np.uint8


def test_where_boxes_overlap_the_smaller_is_in_front_whatever_their_order():
    large, small = (1, 0, 0, 30, 24), (2, 10, 8, 18, 16)
    semantic = core_labels([small, large], SHAPE, 0)
    assert np.array_equal(semantic, core_labels([large, small], SHAPE, 0))
    assert semantic[12, 14] == 2 and semantic[8, 10] == 254 and (semantic == 1).any()


def test_without_a_background_nothing_is_said_outside():
    assert set(np.unique(core_labels([(3, 4, 2, 24, 22)], SHAPE, None)).tolist()) == {3, 254}


def test_a_whole_core_fills_the_box():
    assert set(np.unique(core_labels([(3, 4, 2, 24, 22)], SHAPE, 0, core=1)).tolist()) == {0, 3}


@given(BOXES)
def test_no_box_labels_a_pixel_of_another_class_and_the_smallest_always_shows(boxes):
    semantic = core_labels(boxes, SHAPE, 0)
    assert semantic.shape == SHAPE
    assert set(np.unique(semantic).tolist()) <= {0, 254} | {label for label, *_ in boxes}
    if boxes:
        areas = [(x1 - x0) * (y1 - y0) for _, x0, y0, x1, y1 in boxes]
        smallest = [label for (label, *_), area in zip(boxes, areas, strict=True) if area == min(areas)]
        assert (semantic == smallest[-1]).any()


def test_for_activation_maps_the_inside_stays_unlabelled():
    boxes = [(3, 4, 2, 24, 22), (1, 20.5, 1, 30, 4)]
    expected = np.zeros(SHAPE)
    expected[2:22, 4:24] = expected[1:4, 20:30] = 254
    semantic = box_labels(boxes, SHAPE, 0)
    assert np.array_equal(semantic, expected) and semantic.dtype == np.uint8
    assert (box_labels(boxes, SHAPE, None) == 254).all()
    assert (box_labels([], SHAPE, 0) == 0).all()


@given(BOXES)
def test_geometry_labels_the_inside_and_nothing_else(boxes):
    by_geometry, by_maps = (box_labels(boxes, SHAPE, 0, inside) for inside in ("geometry", "cam"))
    assert np.array_equal(by_geometry, core_labels(boxes, SHAPE, 0))
    assert np.array_equal(by_geometry == 0, by_maps == 0)


def test_another_way_to_label_the_inside_is_refused():
    with pytest.raises(ConfigError, match=r"got sam.*cam, geometry"):
        box_labels([], SHAPE, 0, "sam")


def test_boxes_may_be_floats_and_touch_the_border():
    listed = [[1, 0, 0, 32, 24], [2, 0.5, 3.25, 4.75, 9]]
    expected = ((1, 0.0, 0.0, 32.0, 24.0), (2, 0.5, 3.25, 4.75, 9.0))
    assert checked_boxes(listed, SHAPE, 3, 0, "boxes.json") == expected


@given(st.floats(-0.999, 0.999), st.integers(0, 3))
def test_less_than_a_pixel_over_the_border_is_cut(over, side):
    box = [0, 0, 32, 24]
    box[side] += over
    (fitted,) = checked_boxes([[1, *box]], SHAPE, 3, 0, "boxes.json")
    assert fitted == (1, max(box[0], 0), max(box[1], 0), min(box[2], 32), min(box[3], 24))


def test_one_small_box_beside_others_is_no_share():
    assert len(checked_boxes([[1, 0, 0, 1, 1], [2, 4, 4, 9, 9]], SHAPE, 3, 0, "boxes.json")) == 2
    assert checked_boxes([[1, 0, 0, 1, 1]], (1, 1), 3, 0, "boxes.json") == ((1, 0, 0, 1, 1),)


@pytest.mark.parametrize(
    ("boxes", "seen"),
    [
        ({"1": []}, "not a list of boxes"),
        ([[1, 0, 0, 4]], "not a box"),
        ([[1, 0, 0, 4, "5"]], "not a box"),
        ([[True, 0, 0, 4, 5]], "not a box"),
        ([[1.0, 0, 0, 4, 5]], "not a box"),
        ([[1, 0, 0, 4, math.nan]], "not a box"),
        ([[1, 0, 0, 4, math.inf]], "not a box"),
        ([[1, 0, 0, 4, 10**400]], "not a box"),
        ([[3, 0, 0, 4, 5]], "class is not in classes.txt (got 3); use 0..2"),
        ([[0, 0, 0, 4, 5]], "a box of the background"),
        ([[1, 4, 0, 4, 5]], "a box is empty"),
        ([[1, 0, 5, 4, 2]], "a box is empty"),
        ([[1, 32, 0, 40, 5]], "lies outside the image (got [1, 32, 0, 40, 5]); the image is 32×24"),
        ([[1, -8, 0, -2, 5]], "lies outside the image"),
        ([[1, 4, 0, 33, 5]], "reaches beyond the image (got [1, 4, 0, 33, 5]); the image is 32×24"),
        ([[1, 8, 9, 4, 2]], "corners are swapped"),
        ([[1, 16, 12, 8, 6]], "not YOLO's centre and size"),
        ([[1, 0.2, 0.3, 0.5, 1.0]], "boxes are shares of the image (0..1), not pixels"),
        ([[1, 0, 0, 1, 1]], "boxes are shares of the image (0..1), not pixels"),
        ([[1, 0.5, 0.6, 0.2, 0.3]], "boxes are YOLO's centres and sizes, shares of the image (0..1)"),
        ([[1, 4, -1, 8, 5]], "reaches beyond the image"),
    ],
)
def test_anything_but_boxes_of_objects_inside_the_image_is_refused_by_name(boxes, seen):
    with pytest.raises(DataError) as raised:
        checked_boxes(boxes, SHAPE, 3, 0, "boxes.json, image 7")
    assert str(raised.value).startswith("boxes.json, image 7: ") and seen in str(raised.value)
