"""Colours that stay apart, overlays that say what is unlabelled, files that come back as they were."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from spml_dist.drawing.overlay import boundaries, outline, overlay, palette, write_picture
from spml_dist.errors import DataError
from spml_dist.records import IGNORED, UNLABELLED

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def test_a_class_keeps_its_colour_whatever_the_number_of_classes():
    np.testing.assert_array_equal(palette(5)[:5], palette(21)[:5])


def test_the_colours_of_32_classes_are_told_apart():
    lab = cv2.cvtColor(palette(32)[None, :32].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert distance[~np.eye(32, dtype=bool)].min() > 15


def test_unlabelled_is_grey_ignored_white_and_background_dark():
    colours = palette(4, background=2)
    assert len(set(colours[UNLABELLED].tolist())) == 1
    assert colours[IGNORED].tolist() == [255, 255, 255]
    assert colours[2].max() < 60 < colours[[0, 1, 3]].max(axis=1).min()


def test_no_two_classes_have_one_colour_however_many_there_are():
    seen = {tuple(colour) for colour in palette(254, background=0).tolist()}
    assert len(seen) == 256
    np.testing.assert_array_equal(palette(254)[:40], palette(40)[:40])


def test_an_overlay_takes_the_labels_colour_as_far_as_it_is_opaque():
    labels = np.ones((20, 30), np.uint8)
    np.testing.assert_array_equal(overlay(NOISE, labels, palette(3), opacity=1)[4, 5], palette(3)[1])
    assert overlay(NOISE, labels, palette(3), opacity=0.5).std() > 0


def test_an_overlay_greys_what_is_unlabelled_and_hatches_what_is_ignored():
    labels = np.full((20, 30), UNLABELLED, np.uint8)
    labels[:, 15:] = IGNORED
    drawn = overlay(NOISE, labels, palette(3))
    assert (drawn[:, :15].max(axis=-1) == drawn[:, :15].min(axis=-1)).all()
    assert drawn[:, :15].std() > 0
    assert set(np.unique(drawn[:, 15:])) == {170, 255}


def test_boundaries_lie_where_segments_meet():
    segments = np.zeros((4, 6), int)
    segments[:, 3:] = 9
    expected = np.zeros((4, 6), bool)
    expected[:, 2] = True
    np.testing.assert_array_equal(boundaries(segments), expected)
    drawn = outline(np.zeros((4, 6, 3), np.uint8), segments)
    np.testing.assert_array_equal(drawn.any(axis=-1), expected)


def test_a_png_comes_back_as_it_was_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "new" / "image.png"
    write_picture(path, NOISE)
    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), NOISE)
    assert [entry.name for entry in path.parent.iterdir()] == ["image.png"]


def test_an_image_too_large_for_a_jpeg_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match=r"a\.jpg: cannot hold so large an image \(got 65501 x 1\)"):
        write_picture(tmp_path / "a.jpg", np.zeros((65501, 1, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []
