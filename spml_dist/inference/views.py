"""How an image is shown to a network: at several scales, mirrored, whole or in windows.

Windows lie as in the published inference: their ends are spread evenly from the window's side to the image's,
no further apart than the stride. There their scores are added up; here every pixel takes the mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spml_dist.errors import ConfigError
from spml_dist.inference.whole_image import padded_size, resized_to

LARGEST_WHOLE = 2048 * 2048
"""pixels above which an image is taken in windows although nobody asked for them: memory is bounded"""
LEAST_WINDOW, LARGEST_WINDOW = 16, 2048
"""pixels: of training crops at least, and of what is seen at a time at most"""


@dataclass(frozen=True)
class Views:
    """What a prediction is the mean of. Raises ConfigError for what cannot be done."""

    scales: tuple[float, ...] = (1.0,)
    """factors of the image's sides"""
    mirror: bool = False
    """see the mirror image at every scale too"""
    window: int | None = None
    """side of square windows of the scaled image, in its pixels; None = whole, unless it is too large"""
    overlap: float = 1 / 3
    """share of a window that the next one covers at least"""
    longer_side: int | None = None
    """pixels to which the image's longer side is scaled before all; None = the image's own size"""
    crop: int = 512
    """side of the windows of an image that is too large to be seen whole"""
    swaps: tuple[tuple[int, int], ...] = ()
    """pairs of classes that change places in a mirror, such as left and right hand"""

    def __post_init__(self) -> None:
        if not self.scales or not all(0.01 <= scale <= 16 for scale in self.scales):
            raise ConfigError("scales", list(self.scales), "give factors between 0.01 and 16, such as 0.75")
        if self.window is not None and not LEAST_WINDOW <= self.window <= LARGEST_WINDOW:
            remedy = f"give a side of {LEAST_WINDOW} to {LARGEST_WINDOW:,} pixels"
            raise ConfigError("window", self.window, remedy)
        if not 0 <= self.overlap <= 0.9:
            raise ConfigError("overlap", self.overlap, "give a share between 0 and 0.9")

    @property
    def count(self) -> int:
        """Times that every pixel is seen, windows aside."""
        return len(self.scales) * (1 + self.mirror)

    @property
    def looks(self) -> list[tuple[float, bool]]:
        """(scale, mirrored) of each look at the whole image."""
        return [(scale, mirrored) for scale in self.scales for mirrored in (False, True)[: 1 + self.mirror]]

    def is_windowed(self, height: int, width: int) -> bool:
        """Whether an image of this size is seen in windows."""
        return self.window is not None or not all(tile.is_whole for tile in tiles(self, height, width))

    def mirrored_classes(self, count: int) -> np.ndarray:
        """[K] int64: the class of the image that each class of its mirror image is."""
        classes = np.arange(count)
        for one, other in self.swaps:
            classes[[one, other]] = other, one
        return classes

    @property
    def ways(self) -> tuple[str, ...]:
        """Names of what makes it more than one look at the whole image."""
        given = {
            "scales": self.scales != (1.0,),
            "mirror": self.mirror,
            "window": self.window is not None,
        }
        return tuple(name for name, used in given.items() if used)


@dataclass(frozen=True)
class Span:
    """A window along one axis."""

    start: int
    """first pixel of the scaled image"""
    stop: int
    first: int
    """first pixel of the image, of those whose centres lie in the window"""
    last: int
    """the one after the last"""

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Tile:
    """A part of an image as the network sees it once."""

    scaled: tuple[int, int]
    """size of the whole image at this scale"""
    rows: Span
    columns: Span
    canvas: tuple[int, int]
    """size of what the network is given: the part, padded at the bottom and right"""
    mirrored: bool
    row_share: np.ndarray
    """[rows] float32: weight of this tile in each row's mean, over its windows and over all views"""
    column_share: np.ndarray
    """[columns] float32: in each column's mean, over its windows"""

    @property
    def is_whole(self) -> bool:
        return (len(self.rows), len(self.columns)) == self.scaled


def tiles(views: Views, height: int, width: int) -> list[Tile]:
    """All tiles of an image, from top to bottom."""
    found: list[Tile] = []
    for scale in views.scales:
        scaled = resized_to(height, width, views.longer_side, scale)
        # Scores are kept at the image's own size, the network sees it at the scaled one.
        large = max(height * width, scaled[0] * scaled[1]) > LARGEST_WHOLE
        side = views.crop if large and views.window is None else views.window
        rows, columns = (
            _spans(of_scaled, of_image, side, views.overlap)
            for of_scaled, of_image in zip(scaled, (height, width), strict=True)
        )
        canvas = padded_size(*(scaled if side is None else (side, side)))
        row_shares, column_shares = _shares(rows, height, views.count), _shares(columns, width)
        for mirrored in (False, True)[: 1 + views.mirror]:
            found += [
                Tile(scaled, row, column, canvas, mirrored, row_share, column_share)
                for row, row_share in zip(rows, row_shares, strict=True)
                for column, column_share in zip(columns, column_shares, strict=True)
            ]
    return sorted(found, key=lambda tile: tile.rows.first)


def _spans(scaled: int, image: int, side: int | None, overlap: float) -> list[Span]:
    if side is None:
        return [Span(0, scaled, 0, image)]
    padded, stride = max(scaled, side), max(1, round(side * (1 - overlap)))
    ends = np.linspace(side, padded, -(-(padded - side) // stride) + 1).astype(int).tolist()
    spans = [
        Span(
            end - side,
            min(end, scaled),
            _first_pixel(end - side, scaled, image),
            _first_pixel(min(end, scaled), scaled, image),
        )
        for end in ends
    ]
    return [
        span for span in spans if span.first < span.last
    ]  # of a strongly enlarged image some see no centre


def _first_pixel(edge: int, scaled: int, image: int) -> int:
    """First pixel of the image whose centre lies at or behind an edge of the scaled one."""
    return max(0, -(-(2 * edge * image - scaled) // (2 * scaled)))


def _shares(spans: list[Span], size: int, views: int = 1) -> list[np.ndarray]:
    hits = np.zeros(size, np.float32)
    for span in spans:
        hits[span.first : span.last] += views
    return [1 / hits[span.first : span.last] for span in spans]
