"""What turns backbone features into an embedding, and an embedding into classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate


class DeepLabHead(nn.Module):
    """Parallel dilated 3×3 convolutions, summed: [B, F, h, w] -> [B, C, h, w]."""

    def __init__(self, features: int, embedding: int, dilations: Sequence[int]):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(features, embedding, 3, padding=rate, dilation=rate) for rate in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        return sum(branch(x) for branch in self.branches)


class PSPNetHead(nn.Module):
    """The map beside averages over 1, 4, 9 and 36 parts of it, then mixed: [B, F, h, w] -> [B, C, h, w].

    Each average passes conv1×1 F->F/4, BN, ReLU and comes back to h×w bilinearly; all together pass
    conv3×3 2F->F/4, BN, ReLU, then conv1×1 F/4->C (the pyramid of Zhao et al., PSPNet, section 3.2).
    """

    SIDES = (1, 2, 3, 6)

    def __init__(self, features: int, embedding: int):
        super().__init__()
        narrow = features // len(self.SIDES)
        self.pyramid = nn.ModuleList(_conv_norm_relu(features, narrow, 1) for _ in self.SIDES)
        self.mix = _conv_norm_relu(features + narrow * len(self.SIDES), narrow, 3)
        self.embed = nn.Conv2d(narrow, embedding, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        averages = [
            interpolate(level(adaptive_avg_pool2d(x, side)), size=size, mode="bilinear", align_corners=False)
            for side, level in zip(self.SIDES, self.pyramid, strict=True)
        ]
        return self.embed(self.mix(torch.cat([x, *averages], dim=1)))


def _conv_norm_relu(inputs: int, outputs: int, size: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class SampleDropout(nn.Module):
    """Dropout of single entries whose mask is drawn for each image from a seed of its own, so that it
    depends neither on the number of workers nor on what else is in the batch."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        if not self.training or self.p == 0 or len(x) == 0:
            return x
        if x.is_cuda:  # drawn there: on the host it would take 50 ms an image, and a copy
            keep = counted_draws(seeds, x.shape[1:], self.p, x.device).to(x)
        else:
            draws = [torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
            keep = (torch.stack(draws) >= self.p).to(x)
        return x * keep / (1 - self.p)


def counted_draws(seeds: Sequence[int], shape: Sequence[int], p: float, device: torch.device) -> Tensor:
    """[B, *shape] bool, False with probability p: a function of (an image's seed, an entry's place) alone, so
    that no entry waits for another's draw.

    seeds: in 0..2^63-1. By a mixing function of 32 bits (lowbias32 by C. Wellons), once with each half of the
    seed.
    """
    numbers = torch.tensor(list(seeds), dtype=torch.int64, device=device)[:, None]
    first, second = (_signed(half).to(torch.int32) for half in (numbers & (1 << 32) - 1, numbers >> 32))
    x = torch.arange(math.prod(shape), dtype=torch.int32, device=device) ^ first
    x = _mix(_mix(x).bitwise_xor_(second))
    return (x >= math.floor(p * 2**32) - 2**31).view(len(numbers), *shape)


def _mix(x: Tensor) -> Tensor:
    """In place; products of int32 wrap around."""
    x ^= x >> 16 & (1 << 16) - 1
    x *= 0x7FEB352D
    x ^= x >> 15 & (1 << 17) - 1
    x *= 0x846CA68B - (1 << 32)
    x ^= x >> 16 & (1 << 16) - 1
    return x


def _signed(bits: Tensor) -> Tensor:
    """32 bits, 0..2^32-1, as the number that they are in int32."""
    return (bits ^ 1 << 31) - (1 << 31)


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
