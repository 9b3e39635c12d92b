"""Smoothed colours as local features beside the coordinates (SPML, section 3.2: DensePose)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

Kernel = Literal["cone", "gaussian"]


def smoothing(kernel: Kernel, device=None) -> Tensor:
    """[5, 5] weights that add up to 1.

    cone: the distance from the centre, whose own weight is therefore 0, as released; gaussian: with a
    deviation of one pixel, as intended.
    """
    steps = torch.arange(5, device=device, dtype=torch.float32) - 2
    squared = steps[:, None] ** 2 + steps**2
    weights = squared.sqrt() if kernel == "cone" else torch.exp(-squared / 2)
    return weights / weights.sum()


@torch.no_grad()
def colours(image: Tensor, size: tuple[int, int], kernel: Kernel) -> Tensor:
    """Colour of each pixel of the embedding's grid: [B, *size, 3] float32 in [-1, 1].

    image: [B, 3, H, W], H and W at least 5, normalised or not. Smoothed without padding, resized (bilinear),
    less each image's mean colour, divided by each channel's largest magnitude; a channel of one value is 0.
    """
    if len(image) == 0:
        return image.new_zeros(0, *size, 3, dtype=torch.float32)
    weights = smoothing(kernel, image.device).expand(3, 1, 5, 5)
    small = interpolate(
        conv2d(image.float(), weights, groups=3), size=size, mode="bilinear", align_corners=False
    )
    centred = small - small.mean(dim=(2, 3), keepdim=True)
    largest = centred.abs().amax(dim=(2, 3), keepdim=True)
    # What is left of a channel of one value is rounding, which must not be blown up to a pattern.
    flat = largest <= 1e-6 * small.abs().amax(dim=(2, 3), keepdim=True)
    return torch.where(flat, 0, centred / largest.clamp(min=1e-12)).movedim(1, -1)
