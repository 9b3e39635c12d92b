"""Local features that stand beside the embedding when pixels are clustered (SPML, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor


def location(height: int, width: int, device=None, dtype=torch.float32) -> Tensor:
    """Coordinates (y, x) of each pixel, both in [-0.5, 0.5]: [height, width, 2]."""
    y = torch.linspace(0, 1, height, device=device, dtype=dtype) - 0.5
    x = torch.linspace(0, 1, width, device=device, dtype=dtype) - 0.5
    return torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1)
