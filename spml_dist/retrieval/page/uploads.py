"""Pictures that somebody drops onto the page: checked, cut into segments, kept for a while in memory."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import ImageFile

from spml_dist.data.decoding import decode
from spml_dist.errors import DataError
from spml_dist.retrieval.collection import Collection
from spml_dist.retrieval.image_segments import ImageSegments

LARGEST_BYTES = 20_000_000
LARGEST_PIXELS = 40_000_000
"""of a picture that is decoded: 120 MB"""
LONGER_SIDE = 1024
"""pixels to which a longer picture is reduced: what the network takes of memory is bounded by it"""
FORMATS = ("JPEG", "PNG", "WEBP")
KEPT, AT_ONCE = 32, 4
"""pictures that are remembered, and that may wait for the network"""


class BusyError(Exception):
    """More pictures wait than may."""


@dataclass(frozen=True)
class Upload:
    """A picture that was dropped."""

    token: str
    segments: ImageSegments
    """of the picture reduced to LONGER_SIDE"""


class Uploads:
    """The last KEPT pictures. Nothing is written to a disk."""

    def __init__(self, collection: Collection):
        self._collection = collection
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(AT_ONCE)

    def add(self, content: bytes) -> Upload:
        """Decode and cut a picture. Raises DataError for none or a too large one, BusyError for too many."""
        if not self._room.acquire(blocking=False):
            raise BusyError
        try:
            image = reduced(decoded(content))
            upload = Upload(secrets.token_urlsafe(12), self._collection.cut(image))
        finally:
            self._room.release()
        with self._lock:
            self._kept[upload.token] = upload
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return upload

    def get(self, token: str) -> Upload:
        """Raises DataError for one that was forgotten."""
        with self._lock:
            if token not in self._kept:
                raise DataError("picture: no longer remembered", None, "drop it once more")
            self._kept.move_to_end(token)
            return self._kept[token]


def decoded(content: bytes) -> np.ndarray:
    """[H, W, 3] uint8 RGB. Raises DataError for anything but a sound picture of bounded size."""
    image = decode(content, "picture", FORMATS, check=_require_bounded, upright=True)
    return np.array(image.convert("RGB"))


def reduced(image: np.ndarray) -> np.ndarray:
    """The image, its longer side at most LONGER_SIDE."""
    height, width = image.shape[:2]
    scale = LONGER_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _require_bounded(image: ImageFile.ImageFile) -> None:
    width, height = image.size
    if width * height > LARGEST_PIXELS:
        remedy = f"reduce it to {LARGEST_PIXELS // 1_000_000} million pixels"
        raise DataError("picture: too many pixels", f"{width}×{height}", remedy)
