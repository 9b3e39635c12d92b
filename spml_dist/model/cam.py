"""The classifier whose activations say where in an image its tags are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from spml_dist.config.models import ModelConfig
from spml_dist.model import backbone
from spml_dist.model.segmenter import prepare
from spml_dist.records import IMAGENET, Normalisation


class Cam(nn.Module):
    """Image -> an activation map of each class -> its score, the mean of the map.

    A 1×1 convolution without bias on the backbone's features, and the mean over the image: the same as a
    linear classifier of pooled features, so a map shows what its class was recognised by (Zhou et al.,
    Learning deep features for discriminative localization, CVPR 2016).
    """

    normalisation: Normalisation = IMAGENET
    """of the images that it is shown"""
    origin = "no weights"
    """where the backbone's weights come from, for people"""

    def __init__(self, net: nn.Module, features: int, num_classes: int):
        super().__init__()
        self.backbone = net
        self.classify = nn.Conv2d(features, num_classes, 1, bias=False)

    @property
    def stride(self) -> int:
        """Image pixels per pixel of a map, along each side."""
        return backbone.stride(self.backbone)

    def activate(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] normalised images of any size -> [B, K, ⌈H/s⌉, ⌈W/s⌉] maps for the stride s.

        Images are padded at the bottom and right with zeros (the mean colour) to multiples of s.
        """
        height, width = images.shape[-2:]
        padded = pad(images, (0, -width % self.stride, 0, -height % self.stride))
        return self.classify(backbone.features(self.backbone, padded))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps [B, K, h, w] and scores [B, K]."""
        maps = self.activate(images)
        return maps, maps.mean(dim=(2, 3))


def build(config: ModelConfig, num_classes: int, seed: int) -> Cam:
    """The network with fresh (seeded) or given weights, on the CPU. Raises ConfigError as the segmenter's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = backbone.from_config(config)
        model = Cam(start.net, backbone.channels(start.net), num_classes)
    model.normalisation, model.origin = start.normalisation, start.origin
    prepare(model, start.net, config)
    return model
