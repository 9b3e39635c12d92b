"""What labelers may change: never an annotated pixel, and what a labeler left is replaced by the next."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spml_dist.labeling.labeler import ByLabels, annotated, is_tagged_alone, possible, with_labels
from spml_dist.records import ANNOTATED, IGNORED, UNLABELLED, Sample
from tests.labeling import builders

SHAPE = (3, 4)
VALUES = st.sampled_from([0, 1, 2, UNLABELLED])
LABELS = arrays(np.uint8, SHAPE, elements=VALUES)
SURENESS = arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))
DRAWN = arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 2, UNLABELLED, IGNORED]))


def sample(**fields) -> Sample:
    return builders.sample(SHAPE, **fields)


@given(DRAWN, st.lists(st.tuples(LABELS, SURENESS, st.sampled_from([0.0, 0.5])), min_size=1, max_size=3))
def test_however_many_labelers_follow_one_another_annotated_and_ignored_pixels_stay(drawn, passes):
    one = sample(semantic=drawn, kinds=("scribbles",))
    kept = drawn != UNLABELLED
    for number, (labels, sureness, least) in enumerate(passes):
        one = with_labels(one, labels, sureness, f"labeler-{number}", least)
        np.testing.assert_array_equal(one.semantic[kept], drawn[kept])
        np.testing.assert_array_equal(annotated(one), kept)


@given(DRAWN, LABELS, SURENESS, st.sampled_from([0.0, 0.5]))
def test_confidence_tells_annotated_labelled_and_unlabelled_pixels_apart(drawn, labels, sureness, least):
    before = sample(semantic=drawn)
    after = with_labels(before, labels, sureness, "walk", least)
    if after is before:
        free = drawn == UNLABELLED
        assert not (free & (labels != UNLABELLED) & (sureness >= least)).any()
        return
    np.testing.assert_array_equal(after.confidence == ANNOTATED, drawn != UNLABELLED)
    np.testing.assert_array_equal(after.confidence == 0, after.semantic == UNLABELLED)
    assert after.kinds == ("walk",) and after.confidence.dtype == after.semantic.dtype == np.uint8


def test_what_a_labeler_has_labelled_is_replaced_by_the_next():
    first = with_labels(sample(), np.full(SHAPE, 1, np.uint8), np.full(SHAPE, 0.9), "walk")
    second = with_labels(first, np.full(SHAPE, 2, np.uint8), np.full(SHAPE, 0.1), "neighbours")
    assert (second.semantic == 2).all() and second.kinds == ("walk", "neighbours")
    assert (first.confidence > second.confidence).all()


def test_seeds_without_confidence_are_no_annotation_where_tags_are_all_there_was():
    seeds = np.full(SHAPE, 1, np.uint8)
    assert not annotated(sample(semantic=seeds, kinds=("tags", "cam"), tags=(1,))).any()
    assert annotated(sample(semantic=seeds, kinds=("boxes", "cam"), tags=(1,))).all()
    assert annotated(sample(semantic=seeds, kinds=("scribbles",))).all()


@pytest.mark.parametrize(
    ("fields", "classes"),
    [
        ({}, None),
        ({"semantic": np.zeros(SHAPE, np.uint8)}, None),  # marks of the background alone
        ({"semantic": np.full(SHAPE, 2, np.uint8)}, [0, 2]),
        ({"tags": (1,)}, [0, 1]),
        ({"tags": ()}, [0]),
        ({"boxes": ((2, 0, 0, 1, 1),), "tags": (2,)}, [0, 2]),
    ],
)
def test_the_classes_that_an_image_may_show(fields, classes):
    found = possible(sample(**fields), 3, 0)
    assert found is None if classes is None else np.flatnonzero(found).tolist() == classes


def test_without_a_background_none_is_possible():
    assert possible(sample(tags=(1,)), 3, None).tolist() == [False, True, False]
    assert possible(sample(semantic=np.zeros(SHAPE, np.uint8)), 3, None).tolist() == [True, False, False]


def test_images_of_tags_alone_have_a_labeler_of_their_own():
    line = np.full(SHAPE, UNLABELLED, np.uint8)
    line[0] = 1
    tagged, marked = sample(tags=(1,)), sample(tags=(1,), semantic=line)
    label = ByLabels(lambda one: replace(one, key="marks"), lambda one: replace(one, key="tags"))
    assert (label(tagged).key, label(marked).key, label(sample()).key) == ("tags", "marks", "marks")
    assert ByLabels(None, None)(tagged) is tagged
    assert not is_tagged_alone(sample(tags=(1,), boxes=()))
