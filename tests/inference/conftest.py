"""A world that can be read out perfectly: classes are colours, and the network sees colours."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, normalize

from spml_dist.data.pack.pack import pack
from spml_dist.records import IMAGENET, UNLABELLED, Sample

CLASSES = ("red", "green", "blue")
with_crf = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None, reason="the extra crf is not installed"
)

COLOURS = np.array([(210, 40, 40), (40, 210, 40), (40, 40, 210)], np.uint8)


class ColourNet(nn.Module):
    """Embeds an image as its colours on a quarter grid; scores are cosines with the classes' colours."""

    normalisation = IMAGENET

    def __init__(self):
        super().__init__()
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        self.anchor = nn.Parameter(normalize((torch.from_numpy(COLOURS) / 255 - mean) / deviation))

    def embed(self, images: Tensor) -> Tensor:
        return avg_pool2d(images, 4)

    def classify(self, embedding: Tensor) -> Tensor:
        return torch.einsum("bchw,kc->bkhw", normalize(embedding), self.anchor)


def stripes(number: int, height: int = 45, width: int = 61) -> Sample:
    """Three vertical stripes in some order, a labelled band across them; odd sizes: padding matters."""
    order = np.roll(np.arange(3), number)
    mask = np.repeat(order[np.arange(width) * 3 // width][None], height, axis=0).astype(np.uint8)
    semantic = np.full_like(mask, UNLABELLED)
    band = slice(height // 3, 2 * height // 3)
    semantic[band] = mask[band]
    return Sample(f"stripes-{number}", COLOURS[mask], semantic, mask.astype(np.uint16), (0, 1, 2), mask)


@pytest.fixture
def network() -> ColourNet:
    return ColourNet().eval()


@pytest.fixture
def settings() -> SimpleNamespace:
    return SimpleNamespace(grid=(4, 6), iterations=10, neighbours=5, longer_side=None, pictures=2)


@pytest.fixture
def packed(tmp_path) -> Callable[..., Path]:
    """packed(name, samples) -> a folder with shards and manifest."""

    def make(name: str, samples, classes=CLASSES) -> Path:
        pack(iter(samples), tmp_path / name, name, split=name, labels="band", classes=classes)
        return tmp_path / name

    return make
