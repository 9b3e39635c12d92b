"""The whole network, and how it is built from a configuration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spml_dist.config.sections import Model as ModelConfig
from spml_dist.model import backbone
from spml_dist.model.heads import ClassifierHead, DeepLabHead
from spml_dist.model.norm import GlobalBatchNorm, globalise


class Segmenter(nn.Module):
    """Image -> pixel embedding (φ) -> class scores.

    The classifier sees the unit embedding, detached unless it is the plain cross-entropy baseline that
    is being trained.
    """

    def __init__(self, net: nn.Module, head: nn.Module, classifier: nn.Module, detached: bool):
        super().__init__()
        self.backbone = net
        self.head = head
        self.classifier = classifier
        self.detached = detached

    def embed(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] normalised pictures -> [B, C, h, w], not normalised, h and w about a quarter."""
        return self.head(self.backbone(images)[-1])

    def classify(self, raw: Tensor, seeds: Sequence[int] = ()) -> Tensor:
        """[B, C, h, w] embedding -> [B, K, h, w] logits; seeds of the dropout, one for each image."""
        unit = nn.functional.normalize(raw.detach() if self.detached else raw, dim=1, eps=1e-12)
        return self.classifier(unit, seeds)

    def forward(self, images: Tensor, seeds: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        raw = self.embed(images)
        return raw, self.classify(raw, seeds)


def build(config: ModelConfig, num_classes: int, seed: int) -> Segmenter:
    """The network with fresh (seeded) or given weights, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = backbone.build(
            config.backbone,
            config.output_stride,
            config.feature_level,
            config.weights,
            config.pretrained,
        )
        channels = net.feature_info.channels()[-1]
        head = DeepLabHead(channels, config.embedding_dim, config.dilations)
        classifier = ClassifierHead(config.embedding_dim, num_classes, config.classifier_dropout)
    model = globalise(Segmenter(net, head, classifier, config.classifier_detached))
    for norm in (module for module in net.modules() if isinstance(module, GlobalBatchNorm)):
        norm.momentum = config.norm_momentum
    for name, parameter in net.named_parameters():
        if any(name == prefix or name.startswith(prefix + ".") for prefix in config.frozen):
            parameter.requires_grad_(False)
    return model
