"""Text on images, in the scripts that DejaVu has and otherwise in those of the machine's fonts."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont


class Lettering:
    """Text of one size. size: in pixels."""

    def __init__(self, size: int, bold: bool = False):
        self.size = size
        self.bold = bold

    def width(self, text: str) -> int:
        """Pixels that the text takes in a line."""
        text, font = self._set(text)
        return math.ceil(font.getlength(text))

    def write(
        self, paper: Image.Image, text: str, at: tuple[int, int], colour: tuple[int, int, int], room: int
    ) -> None:
        """Write a line, its top left corner at (x, y); what does not fit into `room` pixels is cut off."""
        text, font = self._set(text)
        if font.getlength(text) > room:
            while text and font.getlength(f"{text}…") > room:
                text = text[:-1]
            text += "…"
        ImageDraw.Draw(paper).text(at, text, fill=colour, font=font)

    def _set(self, text: str) -> tuple[str, ImageFont.FreeTypeFont]:
        text = " ".join(text.split())
        path = _font(frozenset(text), self.bold)
        known = _letters(path)
        return "".join(c if c in known else f"<U+{ord(c):04X}>" for c in text), _loaded(path, self.size)


def without_font(text: str) -> str:
    """The letters of a text that are written as their numbers: no font of this machine has them."""
    letters = frozenset(" ".join(text.split()))
    return "".join(sorted(letters - _letters(_font(letters, bold=False))))


@cache
def _font(letters: frozenset[str], bold: bool) -> str:
    """File of DejaVu, or of this machine's first font that has more of the letters than any other."""
    import matplotlib

    name = f"fonts/ttf/DejaVuSans{'-Bold' if bold else ''}.ttf"
    usual = str(Path(matplotlib.get_data_path()) / name)
    if letters <= _letters(usual):
        return usual
    from matplotlib.font_manager import findSystemFonts

    return max((usual, *sorted(findSystemFonts())), key=lambda path: len(letters & _letters(path)))


@cache
def _letters(path: str) -> frozenset[str]:
    """The characters that a font has; none where the file is no font that can be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()


@cache
def _loaded(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
