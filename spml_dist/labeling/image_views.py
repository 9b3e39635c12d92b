"""An image as a network sees it at several scales, plain and mirrored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt

import numpy as np

from spml_dist.inference import whole_image
from spml_dist.inference.whole_image import EmbeddedImage
from spml_dist.labeling.cams import MOST_PIXELS
from spml_dist.model.segmenter import Segmenter


def embedded_at(
    model: Segmenter, image: np.ndarray, scale: float, longer_side: int | None = None
) -> EmbeddedImage:
    """An image [H, W, 3] uint8 embedded at a factor of its size, or of `longer_side` pixels if given; at no
    more than MOST_PIXELS."""
    height, width = image.shape[:2]
    longest = max(height, width)
    limit = longest * sqrt(MOST_PIXELS / (height * width))
    side = min((longer_side or longest) * scale, limit)
    return whole_image.embed(model, image, max(1, round(side)))


def views(
    model: Segmenter, image: np.ndarray, scales: Sequence[float], longer_side: int | None, mirror: bool
) -> Iterator[tuple[EmbeddedImage, bool]]:
    """The image at every scale, and whether it is mirrored."""
    for scale in scales:
        for mirrored in (False, True)[: 1 + mirror]:
            shown = np.ascontiguousarray(image[:, ::-1]) if mirrored else image
            yield embedded_at(model, shown, scale, longer_side), mirrored
