"""Images for people: label colours, overlays, segment boundaries, contact sheets. RGB uint8 throughout."""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from functools import cache
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from spml_dist.errors import DataError
from spml_dist.files.write import replacing
from spml_dist.records import IGNORED, UNLABELLED

# Okabe and Ito's colours, then the colours farthest from all before them in CIELAB, as seen with normal
# sight, deuteranopia and protanopia: neighbouring classes stay apart for as many eyes as possible.
_COLOURS = """
0072B2 E69F00 009E73 D55E00 CC79A7 56B4E9 F0E442 8C1450 646414 DC1450 F0B48C 78B43C 783C28 7864C8 14F064
B4F014 DCDC8C F07864 146464 A02814 C814DC 8CB48C A0A014 B47828 146428 14B450 8C7850 64DC14 A0283C 648C3C
78C878 50643C
"""
_BACKGROUND, _GREY, _WHITE = (38, 42, 48), (150, 150, 150), (255, 255, 255)
_INK, _PALE_INK = (32, 36, 42), (96, 102, 112)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LONGER_SIDE, _MIN_CELL, _GAP, _MARGIN, _LINE = 260, 130, 10, 18, 24


def palette(num_classes: int, background: int | None = None) -> np.ndarray:
    """Colour of every label, [256, 3] uint8: 254 grey, 255 white, the background nearly black.

    A class has the same colour however many classes there are, and no other class has it; only the first 32
    are easily told apart.
    """
    table = np.full((256, 3), _GREY, np.uint8)
    table[:num_classes] = np.array(_colours(), np.uint8)[:num_classes]
    if background is not None:
        table[background] = _BACKGROUND
    table[UNLABELLED], table[IGNORED] = _GREY, _WHITE
    return table


@cache
def _colours() -> list[tuple[int, ...]]:
    """Of 256 classes: the chosen ones, then hues in golden steps, ever three of them darker and paler."""
    found = [tuple(bytes.fromhex(code)) for code in _COLOURS.split()]
    for number in count():
        if len(found) == 256:
            return found
        hue, shade = number * (5**0.5 - 1) / 2 % 1, number % 3
        colour = tuple(round(255 * part) for part in hsv_to_rgb(hue, 0.9 - 0.25 * shade, 0.95 - 0.2 * shade))
        found += [colour] if colour not in found else []


def overlay(image: np.ndarray, labels: np.ndarray, colours: np.ndarray, opacity: float = 0.65) -> np.ndarray:
    """The image tinted by its labels, [H, W, 3].

    image: [H, W, 3]; labels: [H, W] integers 0..255; colours: [256, 3] from `palette`. Unlabelled pixels show
    the image in pale grey, ignored ones are white.
    """
    grey = image.astype(np.float32).mean(axis=-1, keepdims=True)
    tinted = (1 - opacity) * (60 + 0.75 * grey) + opacity * colours[labels]
    pale = np.broadcast_to(0.55 * grey + 0.45 * 255, image.shape)
    mixed = np.where((labels == UNLABELLED)[..., None], pale, tinted)
    mixed[labels == IGNORED] = 255
    return mixed.astype(np.uint8)


def boundaries(segments: np.ndarray) -> np.ndarray:
    """[H, W] bool: the pixel's segment differs from that of the pixel below or to the right."""
    edge = np.zeros(segments.shape, bool)
    edge[:-1] |= segments[:-1] != segments[1:]
    edge[:, :-1] |= segments[:, :-1] != segments[:, 1:]
    return edge


def outline(image: np.ndarray, segments: np.ndarray, colour: Sequence[int] = (255, 225, 60)) -> np.ndarray:
    """The image, slightly darkened, with the boundaries of its segments drawn on it, [H, W, 3]."""
    drawn = image * 0.85
    edge = boundaries(segments)
    drawn[edge] = 0.25 * drawn[edge] + 0.75 * np.asarray(colour, np.float64)
    return drawn.astype(np.uint8)


def panel(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    names: Sequence[str] = (),
    colours: np.ndarray | None = None,
) -> np.ndarray:
    """A contact sheet: images in rows, a title above every column, the classes' colours below.

    rows: images [h, w, 3], as many in a row as titles, of any size; names: classes in the order of
    their ids, with colours [256, 3] from `palette`. Returns [H, W, 3].
    """
    fitted = [[_fit(image) for image in row] for row in rows]
    cell = max([_MIN_CELL, *(image.shape[1] for row in fitted for image in row)])
    width = 2 * _MARGIN + len(titles) * (cell + _GAP) - _GAP
    parts = [_heading(titles, cell, width), *(_strip(row, cell, width) for row in fitted)]
    if len(names):
        parts.append(_legend(names, palette(len(names)) if colours is None else colours, width))
    return np.concatenate([*parts, _paper(_MARGIN, width)])


def write_picture(path: str | Path, image: np.ndarray) -> None:
    """Write [H, W, 3] RGB as .png, .jpg or .jpeg, whole or not at all. The folder is made if need be.

    Raises DataError for an image that the format cannot hold: a JPEG has at most 65,500 pixels a side.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fits, encoded = cv2.imencode(path.suffix.lower(), np.ascontiguousarray(image[..., ::-1]))
    if not fits:
        height, width = image.shape[:2]
        raise DataError(f"{path}: cannot hold so large an image", f"{height} x {width}", "write a .png")
    with replacing(path) as aside:
        aside.write_bytes(encoded.tobytes())


def _paper(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def _heading(titles: Sequence[str], cell: int, width: int) -> np.ndarray:
    strip = _paper(_MARGIN + _LINE, width)
    for column, title in enumerate(titles):
        left = _MARGIN + column * (cell + _GAP) + (cell - _text_width(title, 0.5)) // 2
        _write(strip, title, left, _MARGIN + 9, 0.5, _INK)
    return strip


def _strip(row: Sequence[np.ndarray], cell: int, width: int) -> np.ndarray:
    strip = _paper(max(len(image) for image in row) + _GAP, width)
    for column, image in enumerate(row):
        left = _MARGIN + column * (cell + _GAP) + (cell - image.shape[1]) // 2
        strip[: len(image), left : left + image.shape[1]] = image
    return strip


def _fit(image: np.ndarray) -> np.ndarray:
    scale = _LONGER_SIDE / max(image.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _legend(names: Sequence[str], colours: np.ndarray, width: int) -> np.ndarray:
    places, left, line = [], _MARGIN, 0
    for name in names:
        advance = 20 + _text_width(name, 0.5) + 16
        if left + advance > width - _MARGIN and left > _MARGIN:
            left, line = _MARGIN, line + 1
        places.append((left, 8 + line * _LINE))
        left += advance
    strip = _paper(8 + (line + 1) * _LINE, width)
    for label, (name, (x, y)) in enumerate(zip(names, places, strict=True)):
        strip[y + 3 : y + 17, x : x + 14] = colours[label]
        _write(strip, name, x + 20, y + 15, 0.5, _PALE_INK)
    return strip


def _write(canvas: np.ndarray, text: str, x: int, y: int, scale: float, colour: Sequence[int]) -> None:
    cv2.putText(canvas, text, (x, y), _FONT, scale, colour, 1, cv2.LINE_AA)


def _text_width(text: str, scale: float) -> int:
    return cv2.getTextSize(text, _FONT, scale, 1)[0][0]
