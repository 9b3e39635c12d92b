"""A contact sheet: everything on it has its place, and its text can be read in any script."""

from __future__ import annotations

import numpy as np
import pytest

from spml_dist.drawing.contact_sheet import SIDE, Entry, fitted, sheet
from spml_dist.drawing.lettering import Lettering, _font, _letters

RED, BLUE = (255, 0, 0), (0, 0, 255)


def entry(title: str = "a", chips=(), height: int = SIDE, width: int = SIDE, colour=(9, 99, 199)) -> Entry:
    image = np.full((height, width, 3), colour, np.uint8)
    return Entry(title, "points", tuple(chips), (("image", image), ("labels", image), ("3", image)))


def pixels(drawn: np.ndarray, colour) -> int:
    return int((drawn == colour).all(axis=-1).sum())


@pytest.mark.parametrize(("size", "expected"), [((100, 50), (SIDE, SIDE // 2)), ((1, 9999), (1, SIDE))])
def test_the_longer_side_of_an_image_is_fixed(size, expected):
    assert fitted(*size) == expected


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_view_of_every_entry_is_there_whole(count):
    drawn = sheet("pack", [entry(height=90, width=SIDE) for _ in range(count)], [("cat", RED)])
    assert pixels(drawn, (9, 99, 199)) == count * 3 * 90 * SIDE
    assert drawn.dtype == np.uint8 and (drawn[0] == 255).all() and (drawn[:, -1] == 255).all()


def test_entries_stand_side_by_side_where_there_is_room():
    one, two, four = (sheet("pack", [entry()] * n, ()) for n in (1, 2, 4))
    assert two.shape[0] == one.shape[0] and two.shape[1] > 1.9 * one.shape[1]
    assert four.shape[1] == two.shape[1] < 1800


def test_tags_and_legend_show_their_colours_on_as_many_lines_as_they_take():
    few = sheet("pack", [entry(chips=[("cat", RED)])], [("dog", BLUE)])
    assert pixels(few, RED) > 100 < pixels(few, BLUE)
    many = sheet("pack", [entry(chips=[("cat" * 9, RED)] * 20)], ())
    assert len(many) > len(few) and pixels(many, RED) > 19 * 100


def ink(text: str, room: int = 500) -> np.ndarray:
    from PIL import Image

    paper = Image.new("RGB", (500, 30), "white")
    Lettering(16).write(paper, text, (0, 0), (0, 0, 0), room)
    return np.asarray(paper).min(axis=-1)


def test_text_that_does_not_fit_is_cut_off():
    assert (ink("m" * 100, room=200)[:, 200:] == 255).all()
    assert (ink("short", room=200) == ink("short")).all()


@pytest.mark.parametrize("text", ["Größe", "Çayır", "река", "λίμνη"])
def test_letters_beyond_ascii_are_drawn(text):
    assert set(text) <= _letters(_font(frozenset(text), bold=False))
    assert not (ink(text) == ink(text.encode("ascii", "replace").decode())).all()


def test_a_letter_that_no_font_has_is_written_as_its_number():
    assert (ink("a\ue999") == ink("a<U+E999>")).all()


def test_a_line_break_in_a_name_stays_in_its_line():
    assert (ink("a\nb") == ink("a b")).all()
