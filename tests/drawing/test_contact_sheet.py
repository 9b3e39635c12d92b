"""A contact sheet: everything on it has its place, and its text can be read in any script."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from spml_dist.drawing.contact_sheet import SIDE, Card, class_chips, fitted, sheet
from spml_dist.drawing.lettering import Lettering, _font, _letters, without_font
from spml_dist.drawing.overlay import palette

RED, BLUE = (255, 0, 0), (0, 0, 255)


def card(title: str = "a", chips=(), height: int = SIDE, width: int = SIDE, colour=(9, 99, 199)) -> Card:
    image = np.full((height, width, 3), colour, np.uint8)
    return Card(title, (("image", image), ("labels", image), ("3", image)), "points", tuple(chips))


def pixels(drawn: np.ndarray, colour) -> int:
    return int((drawn == colour).all(axis=-1).sum())


@pytest.mark.parametrize(("size", "expected"), [((100, 50), (SIDE, SIDE // 2)), ((1, 9999), (1, SIDE))])
def test_the_longer_side_of_an_image_is_fixed(size, expected):
    assert fitted(*size) == expected


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_view_of_every_card_is_there_whole(count):
    drawn = sheet("pack", [card(height=90, width=SIDE) for _ in range(count)], [("cat", RED)])
    assert pixels(drawn, (9, 99, 199)) == count * 3 * 90 * SIDE
    assert drawn.dtype == np.uint8 and (drawn[0] == 255).all() and (drawn[:, -1] == 255).all()


def test_cards_stand_side_by_side_where_there_is_room():
    one, two, four = (sheet("pack", [card()] * n, ()) for n in (1, 2, 4))
    assert two.shape[0] == one.shape[0] and two.shape[1] > 1.9 * one.shape[1]
    assert four.shape[1] == two.shape[1] < 1800


def test_tags_and_legend_show_their_colours_on_as_many_lines_as_they_take():
    few = sheet("pack", [card(chips=[("cat", RED)])], [("dog", BLUE)])
    assert pixels(few, RED) > 100 < pixels(few, BLUE)
    many = sheet("pack", [card(chips=[("cat" * 9, RED)] * 20)], ())
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


@pytest.mark.parametrize("share", range(1, 100))
def test_a_name_has_room_for_all_of_itself(share):
    lettering, text = Lettering(13), f"ground {share}%"
    paper, wider = (Image.new("RGB", (200, 20), "white") for _ in range(2))
    lettering.write(paper, text, (0, 0), RED, lettering.width(text))
    lettering.write(wider, text, (0, 0), RED, 200)
    assert paper.tobytes() == wider.tobytes()


def test_a_letter_that_no_font_has_is_written_as_its_number():
    assert (ink("a\ue999") == ink("a<U+E999>")).all()


def test_a_line_break_in_a_name_stays_in_its_line():
    assert (ink("a\nb") == ink("a b")).all()


def test_letters_that_no_font_has_are_known():
    assert without_font("a\ue999 größe") == "\ue999"


@pytest.mark.parametrize("names", [(), ("sky", "sea"), tuple(f"a class of number {n}" for n in range(40))])
@pytest.mark.parametrize("shape", [(20, 30, 3), (300, 7, 3), (7, 300, 3), (900, 800, 3)])
def test_a_sheet_holds_every_image_and_name_whatever_their_sizes(names, shape):
    views = (("Image", np.full(shape, 90, np.uint8)), ("Weak labels", np.full((40, 50, 3), 60, np.uint8)))
    colours = palette(max(len(names), 1))
    drawn = sheet("run", [Card("a", views)] * 2, class_chips(range(len(names)), names, colours))
    assert drawn.dtype == np.uint8 and drawn.shape[2] == 3
    assert pixels(drawn, (90, 90, 90)) and pixels(drawn, (60, 60, 60))
    assert (drawn[[0, -1]] == 255).all() and (drawn[:, [0, -1]] == 255).all()
    assert all(pixels(drawn, palette(40)[number]) for number in range(len(names)))


def test_labels_do_not_blend_where_an_image_becomes_larger():
    image = np.zeros((2, 2, 3), np.uint8)
    image[:, 1] = RED
    drawn = sheet("run", [Card("a", (("labels", image),))], ())
    assert pixels(drawn, RED) == pixels(drawn, (0, 0, 0)) == SIDE * SIDE // 2


def test_the_sheet_is_the_same_every_time():
    assert (sheet("a", [card()], [("b", RED)]) == sheet("a", [card()], [("b", RED)])).all()


def test_a_legend_knows_what_has_no_class():
    chips = class_chips([1, 254, 255], ["cat", "dog"], palette(2))
    assert [name for name, _ in chips] == ["dog", "unlabelled", "ignored (hatched)"]
    assert chips[0][1] == tuple(palette(2)[1].tolist())
