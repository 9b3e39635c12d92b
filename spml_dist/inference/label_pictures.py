"""The files of one labelled image: class ids as a palette PNG, an overlay, confidence."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from spml_dist.drawing.contact_sheet import class_chips, with_legend
from spml_dist.drawing.overlay import overlay, palette
from spml_dist.errors import RunError
from spml_dist.files.write import WRITABLE, write_bytes
from spml_dist.inference.pixel_labels import PixelLabels

MASKS, OVERLAYS, CONFIDENCE = "masks", "overlays", "confidence"
"""folders"""
WIDEST = 2048
"""pixels of an overlay's longer side, which is for eyes"""


@dataclass(frozen=True)
class LabelPictures:
    """Writes them. Pickles."""

    out: Path
    classes: tuple[str, ...]
    background: int | None
    overlays: bool = True
    confidence: bool = True

    def files(self, name: str) -> dict[str, str]:
        """What is written of an image, by kind, relative to `out`."""
        files = {"mask": f"{MASKS}/{name}.png"}
        files |= {"overlay": f"{OVERLAYS}/{name}.jpg"} if self.overlays else {}
        return files | ({"confidence": f"{CONFIDENCE}/{name}.png"} if self.confidence else {})

    def write(self, name: str, image: np.ndarray, labels: PixelLabels) -> None:
        """Write an image's files, each whole or not at all. Raises RunError where they cannot be written.

        image: [H, W, 3] uint8 RGB.
        """
        colours = palette(len(self.classes), self.background)
        contents = {
            "mask": lambda: mask_png(labels.classes, colours, self.classes),
            "overlay": lambda: _overlay(image, labels.classes, colours, self.classes),
            "confidence": lambda: _png(Image.fromarray(labels.confidence)),
        }
        for kind, file in self.files(name).items():
            path = self.out / file
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunError(f"{path.parent}: cannot be made", error.strerror, WRITABLE) from error
            write_bytes(path, contents[kind]())


def mask_png(classes: np.ndarray, colours: np.ndarray, names: Sequence[str]) -> bytes:
    """A PNG whose pixels are class ids, which viewers show in the classes' colours.

    classes: [H, W] uint8; colours: [256, 3] of `palette`; names: written along, as the text `classes`.
    """
    picture = Image.fromarray(classes, "P")
    picture.putpalette(colours.tobytes())
    about = PngInfo()
    about.add_itxt("classes", json.dumps(list(names), ensure_ascii=False))
    return _png(picture, pnginfo=about)


def _png(picture: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def _overlay(image: np.ndarray, classes: np.ndarray, colours: np.ndarray, names: Sequence[str]) -> bytes:
    """The image tinted by its classes, above the names of those that have a hundredth of it."""
    shares = np.bincount(classes.ravel(), minlength=len(names)) / max(1, classes.size)
    shown = [label for label in np.argsort(-shares, kind="stable").tolist() if shares[label] >= 0.01]
    chips = [
        (f"{name} {shares[label]:.0%}", colour)
        for label, (name, colour) in zip(shown, class_chips(shown, names, colours), strict=True)
    ]
    scale = WIDEST / max(classes.shape)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in classes.shape[::-1])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        classes = cv2.resize(classes, (width, height), interpolation=cv2.INTER_NEAREST)
    file = io.BytesIO()
    tinted = with_legend(overlay(image, classes, colours), chips)
    Image.fromarray(tinted).save(file, "JPEG", quality=90)
    return file.getvalue()
