"""The whole network, and how it is built from a configuration."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, pad

from spml_dist.config.models import ModelConfig
from spml_dist.errors import ConfigError
from spml_dist.model import backbone
from spml_dist.model.batch_norm import GlobalBatchNorm, globalise
from spml_dist.model.heads import ClassifierHead, DeepLabHead, PSPNetHead
from spml_dist.records import IMAGENET, Normalisation

GRID_STRIDE = 4
"""Image pixels per cell of the embedding grid, along each side"""


class Segmenter(nn.Module):
    """Image -> pixel embedding (φ) -> class scores.

    The classifier sees the unit embedding, detached unless it is the plain cross-entropy baseline that
    is being trained.
    """

    normalisation: Normalisation = IMAGENET
    """of the images that it is shown"""
    origin = "no weights"
    """where the backbone's weights come from, for people"""

    def __init__(self, net: nn.Module, head: nn.Module, classifier: nn.Module, detached: bool):
        super().__init__()
        self.backbone = net
        self.head = head
        self.classifier = classifier
        self.detached = detached

    def embed(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] normalised images of any size -> [B, C, ⌈H/4⌉, ⌈W/4⌉], not normalised.

        The grid is a quarter whatever the backbone's stride s (8, 16, a transformer's patch of 14, …): the
        images are padded at the bottom and right with zeros (the mean colour) to multiples of s and of 4,
        the head's map is resized bilinearly (×2 at the published stride of 8), cells of the padding go.
        """
        height, width = images.shape[-2:]
        multiple = math.lcm(backbone.stride(self.backbone), GRID_STRIDE)
        padded = pad(images, (0, -width % multiple, 0, -height % multiple))
        low = self.head(backbone.features(self.backbone, padded))
        size = [side // GRID_STRIDE for side in padded.shape[-2:]]
        grid = interpolate(low, size=size, mode="bilinear", align_corners=False)
        return grid[..., : math.ceil(height / GRID_STRIDE), : math.ceil(width / GRID_STRIDE)]

    def classify(self, raw: Tensor, seeds: Sequence[int] = ()) -> Tensor:
        """[B, C, h, w] embedding -> [B, K, h, w] logits; seeds of the dropout, one for each image."""
        unit = normalize(raw.detach() if self.detached else raw, dim=1, eps=1e-12)
        return self.classifier(unit, seeds)

    def forward(self, images: Tensor, seeds: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        raw = self.embed(images)
        return raw, self.classify(raw, seeds)


def build(config: ModelConfig, num_classes: int, seed: int) -> Segmenter:
    """The network with fresh (seeded) or given weights, on the CPU.

    Raises ConfigError for a backbone or weights that cannot be had, and for a frozen prefix without effect.
    """
    # Its own draws alone: what else was drawn in this process before must not change a seeded network.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = backbone.from_config(config)
        head = _head(config, backbone.channels(start.net))
        classifier = ClassifierHead(config.embedding_dim, num_classes, config.classifier_dropout)
    model = Segmenter(start.net, head, classifier, config.classifier_detached)
    model.normalisation, model.origin = start.normalisation, start.origin
    prepare(model, start.net, config)
    return model


def prepare(model: nn.Module, net: nn.Module, config: ModelConfig) -> None:
    """Make a network around the backbone `net` ready for training: batch norms over all ranks, a frozen
    prefix."""
    globalise(model)
    for norm in (module for module in net.modules() if isinstance(module, GlobalBatchNorm)):
        norm.momentum = config.norm_momentum
    _freeze(net, config.frozen)
    if config.checkpointing:
        backbone.recompute(net, config.backbone)


def _head(config: ModelConfig, channels: int) -> nn.Module:
    match config.head:
        case "deeplab":
            return DeepLabHead(channels, config.embedding_dim, config.dilations)
        case "pspnet":
            return PSPNetHead(channels, config.embedding_dim)


def _freeze(net: nn.Module, prefixes: Sequence[str]) -> None:
    names = dict(net.named_parameters())
    for prefix in prefixes:
        frozen = [name for name in names if name == prefix or name.startswith(prefix + ".")]
        if not frozen:
            parts = dict.fromkeys(part for name in names for part in _prefixes(name))
            near = ", ".join(difflib.get_close_matches(prefix, parts))
            remedy = f"did you mean {near}?" if near else f"they are called like {next(iter(names))}"
            raise ConfigError("model.frozen names no parameter of model.backbone", prefix, remedy)
        for name in frozen:
            names[name].requires_grad_(False)


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
