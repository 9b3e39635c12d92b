"""What a segmenter sees in an image of any size, on the coarse grid on which labels spread."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from spml_dist.inference import whole_image
from spml_dist.labeling.painting import centres, sampled
from spml_dist.labeling.windows import blended
from spml_dist.method.kmeans import unit
from spml_dist.model.segmenter import Segmenter

TILE, MARGIN = 1024, 128
"""pixels: side of the parts in which the network sees an image that is larger, and what neighbours share"""


@dataclass(frozen=True)
class GridScores:
    """An image's embedding and its classes on a grid of h×w, seen in V views; mirrored ones mirrored back."""

    embedding: Tensor
    """[V, C, h, w] unit vectors"""
    probability: Tensor
    """[K, h, w] the classifier's, mean over the views"""


def grid_scores(
    model: Segmenter,
    image: np.ndarray,
    num_classes: int,
    stride: int,
    longer_side: int | None = None,
    unmirrored: Tensor | None = None,
) -> GridScores:
    """Look at an image [H, W, 3] uint8 RGB, scaled to a longer side first if given.

    stride: pixels per cell, rounded so that the grid is ⌊H/stride⌋×⌊W/stride⌋, at least 1×1; unmirrored: look
    at the mirrored image too, whose classes have these places, [K] int64. Values are taken bilinearly at the
    cells' centres (the release enlarges all maps to the image first, which is the same wherever its sides are
    multiples of the stride).
    """
    image = _scaled(image, longer_side)
    height, width = image.shape[:2]
    grid = max(1, height // stride), max(1, width // stride)

    @torch.inference_mode()
    def part(rows: slice, columns: slice) -> Tensor:
        y, x = centres(rows, grid[0], height), centres(columns, grid[1], width)
        top, bottom = rows.start * height // grid[0], -(-rows.stop * height // grid[0])
        left, right = columns.start * width // grid[1], -(-columns.stop * width // grid[1])
        tile = image[top:bottom, left:right]
        views = [_view(model, tile, y - top, x - left)]
        if unmirrored is not None:
            embedding, probability = _view(model, tile[:, ::-1], y - top, right - x)
            views.append((embedding, probability[:, unmirrored.to(probability.device)]))
        embeddings, probabilities = zip(*views, strict=True)
        mean = torch.cat(probabilities).mean(dim=0)
        return torch.cat([*(each[0] for each in embeddings), mean])

    maps = blended(grid, max(1, TILE // stride), MARGIN // stride, part)

    views = 1 if unmirrored is None else 2
    embedding = maps[:-num_classes].view(views, -1, *grid)
    return GridScores(embedding, maps[-num_classes:])


def _view(model: Segmenter, tile: np.ndarray, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Unit embedding [1, C, r, c] and class probabilities [1, K, r, c] of a part at places in it."""
    embedded = whole_image.embed(model, np.ascontiguousarray(tile))
    extent = embedded.geometry.padded
    logits = sampled(model.classify(embedded.raw).float(), extent, y, x)
    return unit(sampled(embedded.raw.float(), extent, y, x), dim=1), logits.softmax(dim=1)


def _scaled(image: np.ndarray, longer_side: int | None) -> np.ndarray:
    height, width = image.shape[:2]
    factor = (longer_side or max(height, width)) / max(height, width)
    if factor == 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
