"""The classifier's probabilities for every pixel of an image, the mean over its views.

Rows are handed over as soon as no later window covers them: what is kept of an image of H×W is as many rows
as a row of windows has, for all classes, and never all H.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from spml_dist.inference.views import Span, Tile, Views, tiles
from spml_dist.inference.whole_image import on_canvas, scaled
from spml_dist.model.segmenter import Segmenter
from spml_dist.records import Normalisation

Stripe = tuple[int, slice, Tensor]
"""number of the image, its rows, [K, rows, W] float32 probabilities on the network's device"""


def stripes(model: Segmenter, images: Iterable[np.ndarray], views: Views, batch: int = 1) -> Iterator[Stripe]:
    """All rows of all images, of each image from top to bottom.

    images: [H, W, 3] uint8 RGB of any sizes, taken when they are needed; batch: tiles of one size that the
    network is given at a time, which may be of several images.
    """
    sums: dict[int, _OpenRows] = {}
    jobs = _jobs(images, views, model.normalisation)
    for _, alike in groupby(jobs, key=lambda job: job.canvas.shape):
        while together := list(islice(alike, batch)):
            for job, scores in zip(together, _logits(model, [job.canvas for job in together]), strict=True):
                probabilities = _probabilities(scores, job.tile, job.size, views)
                rows = sums.setdefault(job.image, _OpenRows(job.size[1], probabilities))
                rows.add(job.tile, probabilities)
                if job.done > rows.top:
                    yield job.image, slice(rows.top, job.done), rows.close(job.done)
                if job.done == job.size[0]:
                    del sums[job.image]


def scores(model: Segmenter, image: np.ndarray, views: Views, batch: int = 1) -> np.ndarray:
    """Probability of each class at each pixel of one image, [K, H, W] float32."""
    return torch.cat([rows for *_, rows in stripes(model, [image], views, batch)], dim=1).cpu().numpy()


@dataclass(frozen=True)
class _Job:
    """A tile of an image, ready for the network."""

    image: int
    size: tuple[int, int]
    tile: Tile
    canvas: np.ndarray
    """[3, h, w] float32"""
    done: int
    """rows of the image that no later tile covers"""


class _OpenRows:
    """The rows of an image to which tiles are still added."""

    def __init__(self, width: int, like: Tensor):
        self.top = 0
        self._sum = like.new_zeros(len(like), 0, width)

    @torch.inference_mode()
    def add(self, tile: Tile, probabilities: Tensor) -> None:
        """Add a tile's part to the mean; its probabilities are overwritten."""
        share = torch.from_numpy(tile.row_share[:, None] * tile.column_share).to(probabilities.device)
        if not self._sum.shape[1] and probabilities.shape[2] == self._sum.shape[2]:
            self._sum = probabilities.mul_(share)  # the first of its rows, as wide as the image: no sum yet
            return
        if (lacking := tile.rows.last - self.top - self._sum.shape[1]) > 0:
            classes, _, width = self._sum.shape
            self._sum = torch.cat([self._sum, self._sum.new_zeros(classes, lacking, width)], dim=1)
        rows = slice(tile.rows.first - self.top, tile.rows.last - self.top)
        self._sum[:, rows, tile.columns.first : tile.columns.last] += probabilities.mul_(share)

    @torch.inference_mode()
    def close(self, stop: int) -> Tensor:
        """Take out the rows above `stop`."""
        count, self.top = stop - self.top, stop
        closed, self._sum = self._sum[:, :count], self._sum[:, count:].clone()
        return closed


def _jobs(images: Iterable[np.ndarray], views: Views, normalisation: Normalisation) -> Iterator[_Job]:
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        parts = tiles(views, height, width)
        done = [*(tile.rows.first for tile in parts[1:]), height]
        for tile, rows in zip(parts, done, strict=True):
            colours = _part(image, tile)
            canvas = on_canvas(colours[:, ::-1] if tile.mirrored else colours, tile.canvas, normalisation)
            yield _Job(number, (height, width), tile, canvas, rows)


def _part(image: np.ndarray, tile: Tile) -> np.ndarray:
    """A tile's colours, [h, w, 3] float32 in [0, 1]."""
    if tile.is_whole:
        return scaled(image, tile.scaled)
    rows, columns = tile.rows, tile.columns
    if tile.scaled == image.shape[:2]:
        part = image[rows.start : rows.stop, columns.start : columns.stop]
        return scaled(part, part.shape[:2])
    # Of the whole image at this scale there is never more than this part.
    pixels, places = torch.from_numpy(image), []
    for axis, span in enumerate((rows, columns)):
        place = _places(np.arange(span.start, span.stop), tile.scaled[axis], image.shape[axis])
        low = int(place.min())
        pixels = pixels.narrow(axis, low, int(np.ceil(place.max())) - low + 1)
        places.append(place - low)
    return (_linear(_linear(pixels, places[1], 1), places[0], 0) / 255).numpy()


@torch.inference_mode()
def _logits(model: Segmenter, canvases: list[np.ndarray]) -> Tensor:
    """[B, K, h, w] float32 at the canvases' size."""
    device = next(model.parameters()).device
    images = torch.from_numpy(np.stack(canvases)).to(device)
    grid = model.classify(model.embed(images)).float()
    return interpolate(grid, size=images.shape[-2:], mode="bilinear")


@torch.inference_mode()
def _probabilities(logits: Tensor, tile: Tile, image: tuple[int, int], views: Views) -> Tensor:
    """What a tile says of the image's pixels that it covers, [K, rows, columns]. logits: of its canvas."""
    rows, columns = tile.rows, tile.columns
    # The padding goes before the resize, whose edge pixels would mix with it.
    part = logits[:, : len(rows), : len(columns)]
    part = part.flip(-1) if tile.mirrored else part
    if tile.scaled != image:
        if tile.is_whole:
            part = interpolate(part[None], size=image, mode="bilinear")[0]
        else:
            for axis, span in ((1, rows), (2, columns)):
                places = _places(np.arange(span.first, span.last), image[axis - 1], tile.scaled[axis - 1])
                part = _linear(part, _inside(places, span), axis)
    probabilities = part.softmax(dim=0)
    if not (tile.mirrored and views.swaps):
        return probabilities
    order = torch.from_numpy(views.mirrored_classes(len(probabilities)))
    return probabilities[order.to(probabilities.device)]


def _places(pixels: np.ndarray, size: int, other: int) -> np.ndarray:
    """Where the centres of pixels of an axis lie on the same axis at another size, inside its pixels."""
    return np.clip((pixels + 0.5) * (other / size) - 0.5, 0, other - 1)


def _inside(places: np.ndarray, span: Span) -> np.ndarray:
    return np.clip(places - span.start, 0, len(span) - 1)


def _linear(values: Tensor, places: np.ndarray, axis: int) -> Tensor:
    """Values at places between pixels along an axis, float32."""
    low = np.floor(places).astype(np.int64)
    high = np.minimum(low + 1, values.shape[axis] - 1)
    shape = [-1 if number == axis else 1 for number in range(values.ndim)]
    share = torch.from_numpy((places - low).astype(np.float32)).reshape(shape).to(values.device)
    before, after = (
        values.index_select(axis, torch.from_numpy(index).to(values.device)).float() for index in (low, high)
    )
    return before + (after - before) * share
