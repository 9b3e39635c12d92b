"""A contact sheet: images beside each other, what is known of each above it, a legend below. RGB uint8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw

from spml_dist.drawing.lettering import Lettering
from spml_dist.records import IGNORED, UNLABELLED

SIDE = 270
"""pixels of the longer side of an image on the sheet"""
_WIDEST, _NARROWEST = 1760, 130
_MARGIN, _GAP, _LINE, _SWATCH = 32, 10, 21, 13
_INK, _SOFT, _RULE = (32, 36, 42), (96, 102, 112), (222, 225, 230)

Chip = tuple[str, tuple[int, int, int]]
"""a name and its colour"""


@dataclass(frozen=True)
class Card:
    """An image on the sheet, seen in several ways."""

    title: str
    views: Sequence[tuple[str, np.ndarray]]
    """caption and [h, w, 3] uint8 of any size; every card has as many"""
    note: str = ""
    chips: Sequence[Chip] = ()


def fitted(height: int, width: int) -> tuple[int, int]:
    """(height, width) of an image on the sheet: its longer side is SIDE."""
    scale = SIDE / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def sheet(heading: str, cards: Sequence[Card], legend: Sequence[Chip]) -> np.ndarray:
    """[H, W, 3]: the cards in reading order, side by side where there is room. There is at least one."""
    cell = max(_NARROWEST, *(fitted(*image.shape[:2])[1] for card in cards for _, image in card.views))
    room = max(320, len(cards[0].views) * (cell + _GAP) - _GAP)
    columns = min(len(cards), max(1, (_WIDEST - _MARGIN) // (room + _MARGIN)))
    width = _MARGIN + columns * (room + _MARGIN)
    drawn = [_card(card, cell, room) for card in cards]
    rows = [_row(drawn[i : i + columns], room, width) for i in range(0, len(drawn), columns)]
    parts = [_heading(heading, width), *rows, _legend(legend, width)]
    return np.concatenate([np.asarray(part) for part in parts])


def with_legend(image: np.ndarray, chips: Sequence[Chip]) -> np.ndarray:
    """[H', W', 3]: an image above the names of its colours; wider where a name has no room below it."""
    widest = max((Lettering(14).width(name) + _SWATCH + 6 for name, _ in chips), default=0)
    width = max(image.shape[1], min(widest + 2 * _GAP, _WIDEST))
    drawn = _chips(chips, width - 2 * _GAP)
    paper = _paper(width, len(image) + drawn.height + 2 * _GAP)
    paper.paste(Image.fromarray(image), (0, 0))
    paper.paste(drawn, (_GAP, len(image) + _GAP))
    return np.asarray(paper)


def class_chips(labels: Iterable[int], names: Sequence[str], colours: np.ndarray) -> tuple[Chip, ...]:
    """Names and colours of label ids, 254 and 255 among them. colours: [256, 3], of `palette`."""
    known = dict(enumerate(names)) | {UNLABELLED: "unlabelled", IGNORED: "ignored (hatched)"}
    return tuple((known[label], tuple(colours[label].tolist())) for label in labels)


def _paper(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "white")


def _heading(text: str, width: int) -> Image.Image:
    paper = _paper(width, _MARGIN + 38)
    Lettering(20, bold=True).write(paper, text, (_MARGIN, _MARGIN - 4), _INK, width - 2 * _MARGIN)
    return paper


def _row(cards: Sequence[Image.Image], room: int, width: int) -> Image.Image:
    paper = _paper(width, max(each.height for each in cards) + 30)
    ImageDraw.Draw(paper).line((_MARGIN, 0, width - _MARGIN, 0), fill=_RULE)
    for column, each in enumerate(cards):
        # Cards stand on one line: so do their images, however many lines their tags take.
        paper.paste(each, (_MARGIN + column * (room + _MARGIN), paper.height - 16 - each.height))
    return paper


def _card(card: Card, cell: int, width: int) -> Image.Image:
    chips, views = _chips(card.chips, width), [(caption, _fit(image)) for caption, image in card.views]
    chips_top = 2 * _LINE if card.note else _LINE
    captions = chips_top + chips.height + 4
    images = captions + _LINE
    paper = _paper(width, images + max(len(image) for _, image in views))
    Lettering(15, bold=True).write(paper, card.title, (0, 0), _INK, width)
    Lettering(14).write(paper, card.note, (0, _LINE), _SOFT, width)
    paper.paste(chips, (0, chips_top))
    for column, (caption, image) in enumerate(views):
        left = column * (cell + _GAP)
        Lettering(13).write(paper, caption, (left, captions), _SOFT, cell)
        paper.paste(Image.fromarray(image), (left, images))
    return paper


def _fit(image: np.ndarray) -> np.ndarray:
    """Averaged where it becomes smaller, in blocks where it becomes larger: labels do not blend."""
    height, width = fitted(*image.shape[:2])
    shrinks = height < image.shape[0] or width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)


def _legend(chips: Sequence[Chip], width: int) -> Image.Image:
    drawn = _chips(chips, width - 2 * _MARGIN)
    paper = _paper(width, drawn.height + 2 * _MARGIN)
    ImageDraw.Draw(paper).line((_MARGIN, 0, width - _MARGIN, 0), fill=_RULE)
    paper.paste(drawn, (_MARGIN, 16))
    return paper


def _chips(chips: Sequence[Chip], width: int) -> Image.Image:
    """Names behind swatches of their colours, on as many lines as they take; no height without any."""
    letters, places, left, line = Lettering(14), [], 0, 0
    for name, _ in chips:
        advance = _SWATCH + 6 + letters.width(name) + 16
        if left and left + advance > width:
            left, line = 0, line + 1
        places.append((left, line * _LINE))
        left += advance
    paper = _paper(width, (line + 1) * _LINE if chips else 0)
    drawn = ImageDraw.Draw(paper)
    for (name, colour), (x, y) in zip(chips, places, strict=True):
        drawn.rectangle((x, y + 2, x + _SWATCH, y + 2 + _SWATCH), fill=colour, outline=_SOFT)
        letters.write(paper, name, (x + _SWATCH + 6, y), _INK, width - x - _SWATCH - 6)
    return paper
