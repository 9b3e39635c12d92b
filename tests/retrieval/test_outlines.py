"""Outlines: run lengths that lose nothing, paths on the edges of cells, a place inside."""

from __future__ import annotations

import re

import numpy as np

from spml_dist.inference.whole_image import image_geometry
from spml_dist.retrieval import outlines


def path(member, image):
    return outlines.path(member, outlines.pixels(image_geometry(image, None, member.shape)))


def test_run_lengths_give_the_segments_back():
    numbers = np.random.default_rng(0).integers(-1, 4, (13, 17))
    for number, outline in enumerate(outlines.encode(numbers, 4)):
        np.testing.assert_array_equal(outlines.decode(outline, (13, 17)), numbers == number)


def test_a_path_runs_along_the_edges_of_cells():
    member = np.zeros((10, 16), bool)
    member[2:5, 3:7] = True
    numbers = np.array(re.findall(r"\d+", path(member, (40, 64))), float).reshape(-1, 2)
    np.testing.assert_allclose(numbers.min(axis=0), [12, 8], atol=1)
    np.testing.assert_allclose(numbers.max(axis=0), [28, 20], atol=1)


def test_a_path_has_a_ring_for_each_piece_and_each_hole():
    member = np.zeros((20, 20), bool)
    member[1:9, 1:9] = member[14:19, 14:19] = True
    member[4:6, 4:6] = False
    assert path(member, (80, 80)).count("M") == 3


def test_nothing_has_no_path():
    assert path(np.zeros((4, 4), bool), (16, 16)) == ""


def test_the_middle_of_a_segment_lies_in_it_whatever_its_form():
    geometry = image_geometry((80, 80), None, (20, 20))
    member = np.zeros((20, 20), bool)
    member[2:18, 2:5] = member[15:18, 2:18] = True  # an L, whose centre of mass is outside
    x, y = outlines.middle(member, geometry)
    assert member[geometry.cell_of_row[y], geometry.cell_of_column[x]]
