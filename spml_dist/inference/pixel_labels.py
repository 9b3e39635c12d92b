"""Class and confidence of every pixel of images, from the classifier's probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spml_dist.inference import crf
from spml_dist.inference.scores import stripes
from spml_dist.inference.views import Views
from spml_dist.model.segmenter import Segmenter


@dataclass(frozen=True)
class PixelLabels:
    """What a network makes of an image."""

    classes: np.ndarray
    """[H, W] uint8: 0..K-1"""
    confidence: np.ndarray
    """[H, W] uint8: probability of that class, 255 = 1"""


def label(
    model: Segmenter, images: Sequence[np.ndarray], views: Views, *, refine: bool = False, batch: int = 1
) -> Iterator[PixelLabels]:
    """Every image's labels, in the order of the images.

    images: [H, W, 3] uint8 RGB; refine: by a dense CRF, which keeps all probabilities of an image at a time;
    batch: parts that the network is given at a time. Raises as `crf.refined` with `refine`.
    """
    rows: list[PixelLabels] = []
    whole: list[Tensor] = []
    for number, covered, probabilities in stripes(model, images, views, batch):
        image = images[number]
        if refine:
            whole.append(probabilities.cpu())
        else:
            rows.append(_labels(probabilities))
        if covered.stop == len(image):
            if refine:
                scores = torch.cat(whole, dim=1).numpy()
                rows.append(_labels(torch.from_numpy(crf.refined(image, scores))))
            yield _joined(rows)
            rows, whole = [], []


def _labels(probabilities: Tensor) -> PixelLabels:
    most, classes = probabilities.max(dim=0)
    confidence = (255 * most).round().clamp(0, 255)
    return PixelLabels(classes.to(torch.uint8).cpu().numpy(), confidence.to(torch.uint8).cpu().numpy())


def _joined(rows: list[PixelLabels]) -> PixelLabels:
    if len(rows) == 1:
        return rows[0]
    return PixelLabels(*(np.concatenate([getattr(each, name) for each in rows]) for name in vars(rows[0])))
