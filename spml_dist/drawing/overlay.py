"""Images for people: label colours, overlays, segment boundaries. RGB uint8 throughout."""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from spml_dist.errors import DataError
from spml_dist.files.write import require_place, write_bytes
from spml_dist.records import IGNORED, UNLABELLED

# Okabe and Ito's colours, then the colours farthest from all before them in CIELAB, as seen with normal
# sight, deuteranopia and protanopia: neighbouring classes stay apart for as many eyes as possible.
_COLOURS = """
0072B2 E69F00 009E73 D55E00 CC79A7 56B4E9 F0E442 8C1450 646414 DC1450 F0B48C 78B43C 783C28 7864C8 14F064
B4F014 DCDC8C F07864 146464 A02814 C814DC 8CB48C A0A014 B47828 146428 14B450 8C7850 64DC14 A0283C 648C3C
78C878 50643C
"""
_BACKGROUND, _GREY, _WHITE = (38, 42, 48), (150, 150, 150), (255, 255, 255)


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
    colours = [tuple(bytes.fromhex(code)) for code in _COLOURS.split()]
    number = 0
    while len(colours) < 256:
        hue, shade = number * (5**0.5 - 1) / 2 % 1, number % 3
        colour = tuple(round(255 * part) for part in hsv_to_rgb(hue, 0.9 - 0.25 * shade, 0.95 - 0.2 * shade))
        colours += [colour] if colour not in colours else []
        number += 1
    return colours


def overlay(image: np.ndarray, labels: np.ndarray, colours: np.ndarray, opacity: float = 0.65) -> np.ndarray:
    """The image tinted by its labels, [H, W, 3].

    image: [H, W, 3]; labels: [H, W] integers 0..255; colours: [256, 3] from `palette`. Unlabelled pixels show
    the image in pale grey; ignored ones are hatched, lest they be taken for a white image.
    """
    grey = image.astype(np.float32).mean(axis=-1, keepdims=True)
    tinted = (1 - opacity) * (60 + 0.75 * grey) + opacity * colours[labels]
    pale = np.broadcast_to(0.55 * grey + 0.45 * 255, image.shape)
    mixed = np.where((labels == UNLABELLED)[..., None], pale, tinted)
    hatched = np.where(np.add.outer(*map(np.arange, labels.shape)) % 9 < 2, 170, 255)
    return np.where((labels == IGNORED)[..., None], hatched[..., None], mixed).astype(np.uint8)


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


def write_picture(path: str | Path, image: np.ndarray) -> None:
    """Write [H, W, 3] RGB as .png, .jpg or .jpeg, whole or not at all. The folder is made if need be.

    Raises DataError for an image that the format cannot hold (a JPEG has at most 65,500 pixels a side), and
    RunError where it cannot be written.
    """
    path = Path(path)
    fits, encoded = cv2.imencode(path.suffix.lower(), np.ascontiguousarray(image[..., ::-1]))
    if not fits:
        height, width = image.shape[:2]
        raise DataError(f"{path}: cannot hold so large an image", f"{height} x {width}", "write a .png")
    require_place(path)
    write_bytes(path, encoded.tobytes())
