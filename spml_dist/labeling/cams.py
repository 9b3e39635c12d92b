"""Class activation maps of images, and the seeds that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import sqrt
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate, relu

from spml_dist.config.labeling_models import CamConfig
from spml_dist.data.stream.augment import normalise
from spml_dist.labeling import cam_seeds
from spml_dist.labeling.labeler import annotated, with_labels
from spml_dist.model import export
from spml_dist.model.cam import Cam
from spml_dist.records import UNLABELLED, Sample

KIND = "cam"
"""what an image's kinds of annotation gain by seeds"""
MOST_PIXELS = 2048 * 2048
"""of an image as the network sees it, before sides are rounded to its stride: they decide how much memory it
takes"""


@torch.inference_mode()
def activations(
    model: Cam, image: np.ndarray, classes: Sequence[int], settings: CamConfig, rectified: bool = True
) -> np.ndarray:
    """What the maps of some classes add up to over all scales and mirror images: [C, H, W] float32.

    image: [H, W, 3] uint8 RGB; rectified: whether only what speaks for a class counts (ReLU). Sides are
    rounded to multiples of the network's stride at every scale, and maps are resized bilinearly to the
    image. That is reduced to `longer_side` and MOST_PIXELS before the scales apply, and at a scale that
    would enlarge it beyond MOST_PIXELS it has just these.
    """
    height, width = image.shape[:2]
    device = next(model.parameters()).device
    size = _limited(height, width, settings.longer_side)
    small = image if size == (height, width) else cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    total = torch.zeros(1, len(classes), *size, device=device)
    for scale in settings.scales:
        view = torch.from_numpy(_view(small, scale, model)).to(device)
        # Both in one batch; the second map is mirrored back before the two are added.
        views = torch.stack([view, view.flip(-1)] if settings.mirror else [view])
        maps = model.activate(views)[:, list(classes)].float()
        maps = relu(maps) if rectified else maps
        both = maps[:1] + maps[1:].flip(-1) if settings.mirror else maps
        total += interpolate(both, size=size, mode="bilinear", align_corners=False)
    # Scales add up at the reduced size, where C maps of a large photograph still fit into memory.
    if size != (height, width):
        total = interpolate(total, size=(height, width), mode="bilinear", align_corners=False)
    return total[0].cpu().numpy()


def with_seeds(
    model: Cam, sample: Sample, background: int | None, settings: CamConfig, least: float = 0.0
) -> Sample:
    """The sample with the seeds of its tags or boxes, `cam` among its kinds where it has got any.

    least: confidence below which a pixel stays unlabelled.
    """
    # Seeds see what people said: labels of an earlier labeler are replaced.
    weak = replace(sample, semantic=np.where(annotated(sample), sample.semantic, np.uint8(UNLABELLED)))
    classes = cam_seeds.mapped_classes(weak)
    if classes is None:
        return sample
    none = np.zeros((0, *sample.semantic.shape), np.float32)
    # Inside a box its class is certain: what speaks least against it is where it is.
    rectified = sample.boxes is None
    maps = activations(model, sample.image, classes, settings, rectified) if classes else none
    semantic = cam_seeds.seeds(weak, maps, background, settings)
    confidence = cam_seeds.confidence(weak, maps, semantic, background, settings)
    return with_labels(sample, semantic, confidence, KIND, least)


@dataclass(frozen=True)
class CamSeeds:
    """Labels images of tags or boxes by a classifier's activation maps. Pickles; each process loads the
    network once."""

    export: Path
    """folder of the exported network"""
    digest: str
    """of its weights: a process keeps no network of an earlier training"""
    settings: CamConfig
    device: str
    least: float = 0.0
    """confidence below which a pixel stays unlabelled"""

    def __call__(self, sample: Sample) -> Sample:
        """The sample as `with_seeds` gives it."""
        model, background = _network(self.export, self.device, self.digest)
        return with_seeds(model, sample, background, self.settings, self.least)

    def activations(self, image: np.ndarray, classes: Sequence[int]) -> np.ndarray:
        """What speaks for each class, [C, H, W] float32, as `activations` gives it."""
        if not classes:
            return np.zeros((0, *image.shape[:2]), np.float32)
        model, _ = _network(self.export, self.device, self.digest)
        return activations(model, image, classes, self.settings)


@lru_cache(maxsize=1)
def _network(folder: Path, device: str, digest: str) -> tuple[Cam, int | None]:
    model, info = export.load(folder, "cam")
    return model.to(device), info["background"]


def _limited(height: int, width: int, longer_side: int | None) -> tuple[int, int]:
    scale = _affordable(min(1.0, (longer_side or max(height, width)) / max(height, width)), height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _affordable(scale: float, height: int, width: int) -> float:
    return min(scale, sqrt(MOST_PIXELS / (height * width)))


def _view(image: np.ndarray, scale: float, model: Cam) -> np.ndarray:
    """[3, h, w] float32, normalised, at a scale or as near to it as MOST_PIXELS allow."""
    scale, stride = _affordable(scale, *image.shape[:2]), model.stride
    height, width = (max(1, round(side * scale / stride)) * stride for side in image.shape[:2])
    floats = image.astype(np.float32) / np.float32(255)
    resized = cv2.resize(floats, (width, height), interpolation=cv2.INTER_LINEAR)
    return normalise(resized, model.normalisation)
