"""Seeds from boxes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spml_dist.annotations.boxes import box_seeds

SHAPE = (24, 32)
CORNER = st.floats(-8, 40)
BOXES = st.lists(
    st.tuples(st.integers(1, 5), CORNER, CORNER, st.floats(0, 40), st.floats(0, 40)).map(
        lambda box: (box[0], box[1], box[2], box[1] + box[3], box[2] + box[4])
    ),
    max_size=5,
)


def test_the_middle_is_labelled_the_rest_of_the_box_is_not_and_outside_is_background():
    semantic = box_seeds([(3, 4, 2, 24, 22)], SHAPE, 0, core=0.25)
    expected = np.zeros(SHAPE)
    expected[2:22, 4:24] = 254
    expected[7:17, 9:19] = 3
    assert np.array_equal(semantic, expected) and semantic.dtype == np.uint8


def test_where_boxes_overlap_the_smaller_is_in_front_whatever_their_order():
    large, small = (1, 0, 0, 30, 24), (2, 10, 8, 18, 16)
    semantic = box_seeds([small, large], SHAPE, 0)
    assert np.array_equal(semantic, box_seeds([large, small], SHAPE, 0))
    assert semantic[12, 14] == 2 and semantic[8, 10] == 254 and (semantic == 1).any()


def test_without_a_background_nothing_is_said_outside():
    assert set(np.unique(box_seeds([(3, 4, 2, 24, 22)], SHAPE, None)).tolist()) == {3, 254}


def test_a_whole_core_fills_the_box():
    assert set(np.unique(box_seeds([(3, 4, 2, 24, 22)], SHAPE, 0, core=1)).tolist()) == {0, 3}


@given(BOXES)
def test_no_box_labels_a_pixel_of_another_class_and_the_smallest_always_shows(boxes):
    semantic = box_seeds(boxes, SHAPE, 0)
    assert semantic.shape == SHAPE
    assert set(np.unique(semantic).tolist()) <= {0, 254} | {label for label, *_ in boxes}
    if boxes:
        areas = [(x1 - x0) * (y1 - y0) for _, x0, y0, x1, y1 in boxes]
        smallest = [label for (label, *_), area in zip(boxes, areas, strict=True) if area == min(areas)]
        assert (semantic == smallest[-1]).any()
