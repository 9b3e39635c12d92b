"""PNG annotations of class ids: scribbles and other sparse labels, and whole masks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from spml_dist.data.decoding import decode
from spml_dist.errors import DataError
from spml_dist.records import IGNORED, UNLABELLED


def read_label_map(path: Path, num_classes: int) -> np.ndarray:
    """Class ids of an 8-bit PNG, greyscale or with a palette: [H, W] uint8 of 0..K-1, or 255.

    Raises DataError for a file that is no such PNG and for a value in K..254.
    """
    labels = _indices(path)
    outside = labels[(labels >= num_classes) & (labels != IGNORED)]
    if outside.size:
        raise DataError(
            f"{path}: a label is not in classes.txt",
            outside.min(),
            f"use 0..{num_classes - 1}, or 255 for pixels without a label",
        )
    return labels


def sparse_labels(labels: np.ndarray) -> np.ndarray:
    """A sparse label map as training sees it: 255, nobody's pixel, becomes unlabelled (254)."""
    return np.where(labels == IGNORED, np.uint8(UNLABELLED), labels)


def holds_ignored_alone(paths: Sequence[Path], background: int | None) -> bool:
    """Whether label maps hold the background and 255 and nothing else, as masks in 0 and 255 do.

    Files that cannot be read count for nothing.
    """
    values: set[int] = set()
    for path in paths:
        with suppress(DataError):
            values |= set(np.unique(_indices(path)).tolist())
    return IGNORED in values and values <= {0 if background is None else background, IGNORED}


def mostly(paths: Sequence[Path]) -> int | None:
    """The class of most pixels of label maps that leave none unlabelled (255), None where one does or none
    can be read."""
    pixels = np.zeros(IGNORED + 1, np.int64)
    for path in paths:
        with suppress(DataError):
            pixels += np.bincount(_indices(path).ravel(), minlength=IGNORED + 1)
    return int(pixels.argmax()) if pixels.any() and not pixels[IGNORED] else None


def _indices(path: Path) -> np.ndarray:
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read", error.strerror, "replace the file") from error
    return np.array(
        decode(encoded, path, ["PNG"], lambda image: _require_indices(path, image, encoded)), np.uint8
    )


def _require_indices(path: Path, image: Image.Image, encoded: bytes) -> None:
    remedy = "write 8-bit class ids, greyscale or with a palette"
    if image.mode not in ("L", "P"):
        raise DataError(f"{path}: not a PNG of class ids", f"colour mode {image.mode}", remedy)
    # 2- and 4-bit greys come out of the decoder stretched to 0..255; byte 24 is the bit depth.
    if image.mode == "L" and encoded[24] != 8:
        raise DataError(f"{path}: not a PNG of class ids", f"{encoded[24]} bits a pixel", remedy)
