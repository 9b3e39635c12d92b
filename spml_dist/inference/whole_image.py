"""Whole-image inference: an image's embedding, its segments and the classifier's scores."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from spml_dist.data.stream.augment import normalise
from spml_dist.method.kmeans import cluster, unit
from spml_dist.method.location import location
from spml_dist.model.segmenter import Segmenter
from spml_dist.records import IGNORED, Normalisation

MULTIPLE = 8
"""Images are padded to sides that are multiples of this, in pixels"""


@dataclass(frozen=True)
class Geometry:
    """Where an image's pixels and the cells of the embedding grid meet: nearest neighbours both ways.

    The image of H×W is resized, padded at the bottom and right, and embedded on a grid of h×w.
    """

    resized: tuple[int, int]
    padded: tuple[int, int]
    row_of_cell: np.ndarray
    """[h] int64: image row of each grid row, -1 in the padding"""
    column_of_cell: np.ndarray
    """[w] int64"""
    cell_of_row: np.ndarray
    """[H] int64: grid row of each image row"""
    cell_of_column: np.ndarray
    """[W] int64"""

    @property
    def valid(self) -> np.ndarray:
        """[h, w] bool: the cell lies in the image."""
        return (self.row_of_cell[:, None] >= 0) & (self.column_of_cell[None, :] >= 0)

    def to_grid(self, labels: np.ndarray) -> np.ndarray:
        """Labels [H, W] on the grid, [h, w]; the padding is ignored (255)."""
        picked = labels[np.ix_(self.row_of_cell, self.column_of_cell)]
        return np.where(self.valid, picked, IGNORED)

    def to_image(self, cells: np.ndarray) -> np.ndarray:
        """Values [h, w] painted on the image, [H, W]."""
        return cells[np.ix_(self.cell_of_row, self.cell_of_column)]


@dataclass(frozen=True)
class EmbeddedImage:
    """One image on the embedding grid."""

    raw: Tensor
    """[1, C, h, w] embedding as the network gives it"""
    unit: Tensor
    """[h, w, C] unit vectors"""
    geometry: Geometry


@torch.inference_mode()
def embed(
    model: Segmenter, image: np.ndarray, longer_side: int | None = None, scale: float = 1
) -> EmbeddedImage:
    """Embed a whole image [H, W, 3] uint8 RGB, its longer side scaled to `longer_side` pixels if given, and
    then by a factor."""
    height, width = image.shape[:2]
    resized = resized_to(height, width, longer_side, scale)
    padded = padded_size(*resized)
    canvas = on_canvas(scaled(image, resized), padded, model.normalisation)
    device = next(model.parameters()).device
    raw = model.embed(torch.from_numpy(canvas)[None].to(device))
    grid = raw.shape[2], raw.shape[3]
    return EmbeddedImage(raw, unit(raw[0].movedim(0, -1)), geometry((height, width), resized, padded, grid))


def image_geometry(image: tuple[int, int], longer_side: int | None, grid: tuple[int, int]) -> Geometry:
    """The geometry of an image of this size, (height, width), as `embed` gives it, without the network."""
    resized = resized_to(*image, longer_side)
    return geometry(image, resized, padded_size(*resized), grid)


def geometry(
    image: tuple[int, int], resized: tuple[int, int], padded: tuple[int, int], grid: tuple[int, int]
) -> Geometry:
    """Nearest neighbours by index = floor(i · in / out), as label maps are resized everywhere."""
    axes = [_axis(*sides) for sides in zip(image, resized, padded, grid, strict=True)]
    (row_of_cell, cell_of_row), (column_of_cell, cell_of_column) = axes
    return Geometry(resized, padded, row_of_cell, column_of_cell, cell_of_row, cell_of_column)


@torch.inference_mode()
def segments(embedded: EmbeddedImage, grid: tuple[int, int], iterations: int) -> np.ndarray:
    """Segment of each cell of the image's grid, [h, w] int64; -1 in the padding.

    Spherical k-means on L2norm([u, location]) over the whole image, labels unembedded.
    """
    h, w, _ = embedded.unit.shape
    valid = torch.from_numpy(embedded.geometry.valid).to(embedded.unit.device)
    place = location(h, w, embedded.unit.device, embedded.unit.dtype)
    # No label takes part, unlike in training: what is measured is what is done to images without any.
    features = unit(torch.cat([embedded.unit, place], dim=-1))
    numbers = cluster(features[None], grid, iterations, valid[None])[0]
    return torch.where(valid, numbers, -1).cpu().numpy()


@torch.inference_mode()
def classify(model: Segmenter, embedded: EmbeddedImage) -> np.ndarray:
    """The classifier's scores (logits) at the image's own size, resized bilinearly: [K, H, W] float32."""
    shape = embedded.geometry
    scores = interpolate(model.classify(embedded.raw).float(), size=shape.padded, mode="bilinear")
    # The padding goes before the last resize, whose edge pixels would mix with it.
    scores = scores[..., : shape.resized[0], : shape.resized[1]]
    image = len(shape.cell_of_row), len(shape.cell_of_column)
    if shape.resized != image:
        scores = interpolate(scores, size=image, mode="bilinear")
    return scores[0].cpu().numpy()


def resized_to(height: int, width: int, longer_side: int | None, scale: float = 1) -> tuple[int, int]:
    """Sides to which an image is resized: its longer one to `longer_side` if given, then by a factor."""
    factor = scale if longer_side is None else scale * longer_side / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def padded_size(height: int, width: int) -> tuple[int, int]:
    """The sides, enlarged to multiples of MULTIPLE."""
    return -(-height // MULTIPLE) * MULTIPLE, -(-width // MULTIPLE) * MULTIPLE


def scaled(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image [H, W, 3] uint8 at another size, bilinearly: float32 in [0, 1]."""
    colours: np.ndarray = image.astype(np.float32) / np.float32(255)
    if size == image.shape[:2]:
        return colours
    return cv2.resize(colours, size[::-1], interpolation=cv2.INTER_LINEAR)


def on_canvas(colours: np.ndarray, padded: tuple[int, int], normalisation: Normalisation) -> np.ndarray:
    """Colours [h, w, 3] float32 as a network sees them: normalised, padded at the bottom and right,
    [3, *padded] float32."""
    # Zeros are the mean colour after normalisation, as crops are padded in training.
    canvas = np.zeros((3, *padded), np.float32)
    canvas[:, : colours.shape[0], : colours.shape[1]] = normalise(colours, normalisation)
    return canvas


def _axis(image: int, resized: int, padded: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis: the image's pixel of each cell (-1 in the padding) and the cell of each pixel."""
    pixel = np.arange(cells) * padded // cells
    pixel_of_cell = np.where(pixel < resized, pixel * image // resized, -1)
    cell_of_pixel = np.arange(image) * resized // image * cells // padded
    return pixel_of_cell, cell_of_pixel
