"""Merging adjacent regions, weakest boundary first."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

_AREA_EXPONENT = 0.4
"""how much earlier small regions merge than their boundaries alone say; tuned on BSDS500's training split"""
_FULL_CONTRAST = 100
"""distance in CIELAB, that of black and white"""

Adjacency = dict[int, tuple[float, float]]
"""regions that touch one, each with the sum of strength along the boundary and its length"""


@dataclass(frozen=True)
class Boundaries:
    """Which regions touch, and how strong the contour between them is."""

    first: np.ndarray
    second: np.ndarray
    """[E] integers: ids of the regions on both sides"""
    strength: np.ndarray
    """[E] float64, 0..1: mean along the boundary"""
    length: np.ndarray
    """[E] in pixel edges"""

    @classmethod
    def none(cls) -> Boundaries:
        """Those of a single region."""
        return cls(*(np.zeros(0, np.int64) for _ in range(2)), *(np.zeros(0) for _ in range(2)))


@dataclass(frozen=True)
class Merges:
    """A binary tree over n regions: merge i makes node n+i of two earlier nodes."""

    pairs: np.ndarray
    """[n-1, 2] int64"""
    levels: np.ndarray
    """[n-1] float64, never falling"""

    def parents(self) -> np.ndarray:
        """[2n-1] int64: the node that each is merged into; the last node is its own."""
        regions = len(self.pairs) + 1
        parents = np.arange(2 * regions - 1)
        parents[self.pairs.ravel()] = np.repeat(np.arange(regions, 2 * regions - 1), 2)
        return parents

    def labels_after(self, merges: int) -> np.ndarray:
        """[n] int64: where each region ends up after the first so many merges, 0..n-1-merges."""
        regions = len(self.pairs) + 1
        nodes = np.arange(regions + merges)
        parents = self.parents()[: len(nodes)]
        # Nodes whose merge comes later are roots. Each pass halves what is left of the way up to them.
        root = np.where(parents < len(nodes), parents, nodes)
        while not np.array_equal(root, root[root]):
            root = root[root]
        return np.unique(root[:regions], return_inverse=True)[1]


def merge_weakest_first(areas: np.ndarray, colours: np.ndarray, boundaries: Boundaries) -> Merges:
    """Merge touching regions until one is left, the weakest boundary first.

    The level of a boundary is (s + c) / 2 · (4ab / (a + b))^0.4: s the mean contour strength along it, c the
    distance of the mean colours of its sides, at most 1, a and b their areas as shares of the image. Colour
    keeps regions apart whose long boundary is broken in few places, and a small region needs a stronger
    boundary to stay. A merge that comes after one of a higher level takes that level, so that what is one
    region at a level is one at all higher ones.

    areas: [n] in pixels; colours: [n, 3] float, mean CIELAB. All regions have to hang together.
    """
    size = (areas / areas.sum()).tolist()
    colour = colours.tolist()
    touching = _touching(len(size), boundaries)

    def level(a: int, b: int) -> float:
        total, length = touching[a][b]
        contrast = min(1.0, math.dist(colour[a], colour[b]) / _FULL_CONTRAST)
        small = 4 * size[a] * size[b] / (size[a] + size[b])
        return (total / length + contrast) / 2 * small**_AREA_EXPONENT

    # Levels of a region's boundaries change when it merges. Their entries in the heap are not looked for: the
    # merged region enters its own under a new id, and entries of regions that are gone are skipped.
    waiting = [(level(a, b), a, b) for a, others in enumerate(touching) for b in others if a < b]
    heapq.heapify(waiting)
    pairs, levels, highest = [], [], 0.0
    while waiting:
        lowest, a, b = heapq.heappop(waiting)
        if not touching[a] or not touching[b]:
            continue
        # A merge may lower the level of a neighbour below what has been merged already; levels never fall, or
        # a region of one level would be cut by a higher one.
        highest = max(highest, lowest)
        pairs.append((a, b))
        levels.append(highest)
        both = size[a] + size[b]
        colour.append([(size[a] * x + size[b] * y) / both for x, y in zip(colour[a], colour[b], strict=True)])
        size.append(both)
        _join(touching, a, b)
        merged = len(touching) - 1
        for other in touching[merged]:
            heapq.heappush(waiting, (level(other, merged), other, merged))
    return Merges(np.array(pairs, np.int64).reshape(-1, 2), np.array(levels, np.float64))


def _touching(regions: int, boundaries: Boundaries) -> list[Adjacency]:
    """The neighbours of each region."""
    touching: list[Adjacency] = [{} for _ in range(regions)]
    columns = (
        boundaries.first,
        boundaries.second,
        boundaries.strength * boundaries.length,
        boundaries.length,
    )
    for a, b, total, length in zip(*(column.tolist() for column in columns), strict=True):
        touching[a][b] = touching[b][a] = (total, length)
    return touching


def _join(touching: list[Adjacency], a: int, b: int) -> None:
    """Add the region made of two others, which are left without neighbours: they are gone."""
    # The longer list of neighbours goes on as the new region's: copying it at each merge would make a large
    # region that swallows many small ones cost the square of their number.
    few, many = sorted((touching[a], touching[b]), key=len)
    touching[a], touching[b] = {}, {}
    for other, (total, length) in few.items():
        before = many.get(other, (0.0, 0.0))
        many[other] = (before[0] + total, before[1] + length)
    many.pop(a, None)
    many.pop(b, None)
    merged = len(touching)
    touching.append(many)
    for other, boundary in many.items():
        neighbours = touching[other]
        neighbours.pop(a, None)
        neighbours.pop(b, None)
        neighbours[merged] = boundary
