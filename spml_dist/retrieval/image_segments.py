"""One image cut into segments by a trained network, as the index holds them and as a query has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import find_objects

from spml_dist.inference import neighbours, whole_image
from spml_dist.inference.whole_image import EmbeddedImage, Geometry
from spml_dist.method.prototypes import prototypes
from spml_dist.model.segmenter import Segmenter


@dataclass(frozen=True)
class Cut:
    """How images are cut: `evaluation` of the run's configuration."""

    longer_side: int | None
    grid: tuple[int, int]
    iterations: int


@dataclass(frozen=True)
class ImageSegments:
    """The segments of one image; no label of the image takes part."""

    vector: np.ndarray
    """[s, C] float32 unit vectors"""
    numbers: np.ndarray
    """[h, w] int64: segment of each cell, 0..s-1; -1 in the padding"""
    predicted: np.ndarray
    """[s] int64: the classifier's class of most cells"""
    area: np.ndarray
    """[s] float32: share of the image's pixels"""
    box: np.ndarray
    """[s, 4] int32: x0, y0, x1, y1 in pixels, x1 and y1 exclusive"""
    geometry: Geometry

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return len(self.geometry.cell_of_row), len(self.geometry.cell_of_column)

    def at(self, x: int, y: int) -> int:
        """The segment of a pixel of the image."""
        return int(self.numbers[self.geometry.cell_of_row[y], self.geometry.cell_of_column[x]])


@torch.inference_mode()
def cut_image(model: Segmenter, image: np.ndarray, cut: Cut) -> ImageSegments:
    """Segments of a whole image, [H, W, 3] uint8 RGB, numbered without gaps."""
    embedded = whole_image.embed(model, image, cut.longer_side)
    numbers = _dense(whole_image.segments(embedded, cut.grid, cut.iterations))
    count = int(numbers.max()) + 1
    scores = model.classify(embedded.raw)[0]
    predicted = scores.argmax(dim=0).cpu().numpy()
    inside = numbers >= 0
    box, area = _extents(numbers, embedded.geometry, count)
    return ImageSegments(
        vector=pooled(embedded, numbers, count),
        numbers=numbers,
        predicted=neighbours.majority(predicted[inside], numbers[inside], count, scores.shape[0]),
        area=area,
        box=box,
        geometry=embedded.geometry,
    )


def pooled(embedded: EmbeddedImage, numbers: np.ndarray, count: int) -> np.ndarray:
    """[count, C] float32: unit vectors of segments over an embedding of their image."""
    inside = torch.from_numpy(numbers >= 0).to(embedded.unit.device)
    number = torch.from_numpy(numbers).to(embedded.unit.device)[inside]
    return prototypes(embedded.unit[inside], number, count).float().cpu().numpy()


def annotated(segments: ImageSegments, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Class of each segment by most of its labelled cells, [s] int64, -1 = none, and their share, [s].

    labels: [H, W] integers, 0..K-1 a class.
    """
    cells = segments.geometry.to_grid(labels)
    voting = (segments.numbers >= 0) & (cells < classes)
    count = len(segments.vector)
    number, label = segments.numbers[voting], cells[voting]
    majority = neighbours.majority(label, number, count, classes)
    votes = np.bincount(number, minlength=count)
    agreeing = np.bincount(number, label == majority[number], minlength=count)
    return majority, (agreeing / np.maximum(votes, 1)).astype(np.float32)


def _dense(numbers: np.ndarray) -> np.ndarray:
    """The same segments numbered without gaps: clusters may end empty."""
    present, dense = np.unique(numbers, return_inverse=True)
    return dense.reshape(numbers.shape) - int(present[0] < 0)


def _extents(numbers: np.ndarray, geometry: Geometry, count: int) -> tuple[np.ndarray, np.ndarray]:
    painted = geometry.to_image(numbers)
    pixels = np.bincount(painted[painted >= 0], minlength=count)
    nothing = slice(0, 0), slice(0, 0)  # a cell of an image that was enlarged may cover no pixel
    found = [each or nothing for each in find_objects(painted + 1, count)]
    box = [(x.start, y.start, x.stop, y.stop) for y, x in found]
    return np.array(box, np.int32).reshape(count, 4), (pixels / painted.size).astype(np.float32)
