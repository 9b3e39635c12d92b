"""What turns backbone features into an embedding, and an embedding into classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class DeepLabHead(nn.Module):
    """Parallel dilated 3×3 convolutions, summed, then ×2 bilinear: [B, F, h, w] -> [B, C, 2h, 2w]."""

    def __init__(self, features: int, embedding: int, dilations: Sequence[int]):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(features, embedding, 3, padding=rate, dilation=rate) for rate in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        summed = sum(branch(x) for branch in self.branches)
        return interpolate(summed, scale_factor=2, mode="bilinear", align_corners=False)


class SampleDropout(nn.Module):
    """Dropout of single entries whose mask is drawn for each image from a seed of its own, so that it
    depends neither on the number of workers nor on what else is in the batch."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        if not self.training or self.p == 0 or len(x) == 0:
            return x
        draws = [torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        keep = (torch.stack(draws) >= self.p).to(x)
        return x * keep / (1 - self.p)


class ClassifierHead(nn.Module):
    """The joint classifier (SPML, appendix A.4): conv3×3 C->2C, BN, ReLU, dropout, conv1×1 2C->K."""

    def __init__(self, embedding: int, num_classes: int, dropout: float):
        super().__init__()
        self.mix = nn.Conv2d(embedding, 2 * embedding, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2 * embedding)
        self.dropout = SampleDropout(dropout)
        self.classify = nn.Conv2d(2 * embedding, num_classes, 1)

    def forward(self, embedding: Tensor, seeds: Sequence[int] = ()) -> Tensor:
        """embedding: [B, C, h, w] unit vectors; seeds: one for each image while training -> [B, K, h, w]."""
        return self.classify(self.dropout(torch.relu(self.norm(self.mix(embedding))), seeds))
