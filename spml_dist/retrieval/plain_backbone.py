"""Features of a backbone with its ImageNet weights, on the grid on which segments lie."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from spml_dist.errors import ConfigError
from spml_dist.inference import whole_image
from spml_dist.inference.whole_image import EmbeddedImage
from spml_dist.model import backbone
from spml_dist.model.pretrained import PACKAGES, hub_answers, installed
from spml_dist.model.segmenter import GRID_STRIDE


class PlainBackbone(nn.Module):
    """Embeds an image as `Segmenter` does, by the backbone's last feature map alone."""

    def __init__(self, name: str, start: backbone.Start):
        super().__init__()
        self.name, self.net, self.normalisation = name, start.net.eval(), start.normalisation

    def embed(self, images: Tensor) -> Tensor:
        """[1, 3, H, W] normalised -> [1, F, ⌈H/4⌉, ⌈W/4⌉]."""
        height, width = images.shape[-2:]
        multiple = np.lcm(backbone.stride(self.net), GRID_STRIDE)
        padded = pad(images, (0, int(-width % multiple), 0, int(-height % multiple)))
        size = [side // GRID_STRIDE for side in padded.shape[-2:]]
        grid = interpolate(backbone.features(self.net, padded), size=size, mode="bilinear")
        return grid[..., : -(-height // GRID_STRIDE), : -(-width // GRID_STRIDE)]

    @torch.inference_mode()
    def embedded(self, image: np.ndarray, longer_side: int | None) -> EmbeddedImage:
        """An image [H, W, 3] uint8 RGB on the grid that a trained network has for it."""
        return whole_image.embed(self, image, longer_side)  # type: ignore[arg-type]  # it embeds like one


def plain_backbone(wanted: str | None, own: str | None) -> PlainBackbone:
    """A network with ImageNet weights: the wanted one, else the run's own, else one that is installed.

    Raises ConfigError where none can be had.
    """
    names = [wanted] if wanted else _at_hand(own)
    problem = ConfigError(
        "--backbone: no network with ImageNet weights is at hand", None, "name one of timm's"
    )
    for name in names:
        try:
            return PlainBackbone(name, backbone.build(name, None, -1, pretrained=True))
        except ConfigError as error:
            problem = error
    raise problem


def _at_hand(own: str | None) -> list[str]:
    # A hub out of reach would be tried for most of a minute.
    mine = [own] if own and (installed(own) or hub_answers()) else []
    return [*mine, *filter(installed, PACKAGES)]
