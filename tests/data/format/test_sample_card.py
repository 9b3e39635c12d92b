"""What a sheet shows of a sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spml_dist.data.format.keys import key_of
from spml_dist.data.format.label_statistics import LabelStatistics
from spml_dist.data.format.manifest import Manifest, Shard
from spml_dist.data.format.sample_card import card, note, reduced, shown
from spml_dist.drawing.contact_sheet import SIDE
from spml_dist.drawing.overlay import palette
from spml_dist.records import IGNORED, UNLABELLED, Sample
from tests.data.conftest import CLASSES, HEIGHT, WIDTH, samples

COLOURS = palette(len(CLASSES), 0)


def manifest(*of: Sample) -> Manifest:
    tally = LabelStatistics(len(CLASSES))
    for sample in of:
        tally.add(sample)
    shards = (Shard("pets-000000.tar", len(of), 0, ""),)
    return Manifest("pets", "train", "lines", CLASSES, 0, len(of), tally.counts(), shards)


def bare(**known) -> Sample:
    unlabelled = np.full((HEIGHT, WIDTH), UNLABELLED, np.uint8)
    return replace(samples(1)[0], **{"semantic": unlabelled, "tags": None, **known})


def views(sample: Sample, masks: bool = False) -> dict[str, np.ndarray]:
    return dict(card(sample, manifest(sample), COLOURS, masks).views)


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.integers(0, 2**32 - 1),
)
def test_no_label_is_lost_where_pixels_fall_together(old, new, seed):
    labels = np.random.default_rng(seed).choice(np.array([1, 254, 255], np.uint8), old, p=[0.01, 0.5, 0.49])
    small = reduced(labels, new)
    assert small.shape == new and set(np.unique(small)) <= set(np.unique(labels))
    assert (small == 1).any() == (labels == 1).any()


def test_one_labelled_pixel_of_a_large_image_is_seen():
    semantic = np.full((1500, 2000), UNLABELLED, np.uint8)
    semantic[701, 1303] = 1
    large = bare(
        image=np.full((1500, 2000, 3), 90, np.uint8),
        semantic=semantic,
        regions=np.zeros((1500, 2000), np.uint16),
    )
    drawn = views(large)["less than 0.1% labelled"]
    coloured = np.argwhere(np.ptp(drawn.astype(int), axis=-1) > 20)
    ((row, column),) = coloured
    assert abs(row - 701 * SIDE / 2000) < 1.5 and abs(column - 1303 * SIDE / 2000) < 1.5


def test_the_views_have_one_size_and_say_how_much_there_is():
    drawn = views(samples(1)[0])
    assert list(drawn) == ["40 × 30 pixels", "3.3% labelled", "13 regions"]
    assert {image.shape for image in drawn.values()} == {(SIDE * 3 // 4, SIDE, 3)}


def test_what_is_unlabelled_is_grey_and_what_is_ignored_is_hatched():
    semantic = np.full((HEIGHT, WIDTH), UNLABELLED, np.uint8)
    semantic[:, : WIDTH // 2] = IGNORED
    (drawn,) = [view for name, view in views(bare(semantic=semantic)).items() if name == "no label"]
    left, right = np.split(drawn, 2, axis=1)
    assert np.ptp(right.astype(int), axis=-1).max() == 0
    assert set(np.unique(left)) == {170, 255}


def test_boxes_are_outlined_in_their_classes_colour():
    drawn = views(bare(boxes=((2, 4.0, 5.0, 36.0, 25.0),)))["no label, 1 box"]
    ys, xs = np.nonzero((drawn == COLOURS[2]).all(axis=-1))
    scale = SIDE / WIDTH
    # The line is three pixels wide, and its middle lies on the first and the last column of the box.
    assert (xs.min() + 1, xs.max() - 1) == (4 * scale, 36 * scale - 1)
    assert np.abs([ys.min() - 5 * scale, ys.max() - 25 * scale]).max() <= 2
    assert not (drawn[int(15 * scale), int(20 * scale)] == COLOURS[2]).all()


def test_the_mask_is_shown_only_when_asked_for():
    sample = samples(1)[0]
    assert "whole mask" in views(sample, masks=True) and "whole mask" not in views(sample)
    assert "no whole mask" in views(replace(sample, mask=None), masks=True)


def test_a_legend_has_the_labels_of_pixels_boxes_tags_and_shown_masks():
    sample = samples(1)[0]
    assert shown(sample) == {1, UNLABELLED, IGNORED}
    assert shown(bare(tags=(2,), boxes=((1, 0.0, 0.0, 9.0, 9.0),))) == {1, 2, UNLABELLED}
    assert shown(bare(mask=sample.mask)) == {UNLABELLED}
    assert shown(bare(mask=sample.mask), masks=True) == {0, 1, UNLABELLED, IGNORED}


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({}, "not annotated · tags unknown"),
        ({"kinds": ("lines", "tags"), "tags": (1,)}, "lines, tags"),
        ({"kinds": ("tags",), "tags": ()}, "tags · known to show no class"),
        (
            {"kinds": ("lines", "tags"), "tags": (1, 2), "unlisted": (2,), "contradicted": 1200},
            "lines, tags · not listed: dog · contradicted pixels: 1,200",
        ),
    ],
)
def test_the_line_above_says_what_is_known(known, message):
    sample = bare(**known)
    assert note(sample, manifest(sample)) == message


def test_labels_of_a_sample_that_names_no_kind_are_of_the_packs():
    sample = samples(2)[1]
    assert note(sample, manifest(sample)) == "lines"


def test_the_title_is_the_image_id_and_tags_have_their_classes_colour():
    sample = bare(key=key_of("a/größe.1"), tags=(2,))
    drawn = card(sample, manifest(sample), COLOURS)
    assert drawn.title == "a/größe.1"
    assert drawn.chips == (("dog", tuple(COLOURS[2].tolist())),)
