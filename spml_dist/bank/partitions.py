"""The fixed partitions of the bank: which images lie in which, and which rank owns which. No state."""

from __future__ import annotations

import torch
from torch import Tensor


def partition_of(image: Tensor, partitions: int) -> Tensor:
    """Partition of each image hash, [..] int64 in 0..partitions-1."""
    return torch.remainder(image, partitions)


def owner_of(partition: Tensor, partitions: int, world: int) -> Tensor:
    """Rank that owns each partition; ranks own runs of neighbouring partitions."""
    return partition * world // partitions


def owned(rank: int, partitions: int, world: int) -> range:
    """The partitions of a rank."""
    return range(-(-rank * partitions // world), -(-(rank + 1) * partitions // world))
