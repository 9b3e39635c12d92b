"""Oriented watershed and ultrametric contour map: a hierarchy of regions from contour strength.

The basins of the contours are the finest regions; merging them by the mean strength of the boundary between
two regions gives all coarser ones (Arbeláez, Maire, Fowlkes and Malik, Contour detection and hierarchical
image segmentation, PAMI 2011). Here colour and area of the two regions have a say in it too.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import higra as hg
import numpy as np

from spml_dist.data.annotations.contours import Contours
from spml_dist.data.annotations.linkage import Boundaries, Merges, merge_weakest_first
from spml_dist.errors import DataError

MOST_REGIONS = 65535
_SMOOTHING = 0.7


@dataclass(frozen=True)
class Hierarchy:
    """Nested partitions of an image, from its basins to one region."""

    basins: np.ndarray
    """[H, W] int64, 0..B-1, each connected"""
    merges: Merges
    """B-1 of them, levels 0..1 that never fall"""


def hierarchy(contours: Contours, image: np.ndarray) -> Hierarchy:
    """The nested regions that contours enclose in an image. The same input gives the same hierarchy.

    image: [H, W, 3] uint8 RGB, the one that the contours are of.
    """
    shape = contours.strength.shape
    if contours.strength.size == 1:  # higra builds no graph without an edge
        basins, boundaries = np.zeros(shape, np.int64), Boundaries.none()
    else:
        basins, boundaries = _oriented_watershed(contours)
    areas = np.bincount(basins.ravel())
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    colours = np.stack([np.bincount(basins.ravel(), channel) / areas for channel in lab.T], axis=1)
    return Hierarchy(basins, merge_weakest_first(areas, colours, boundaries))


def cut_at(nested: Hierarchy, level: float) -> np.ndarray:
    """Regions after all merges up to a level, [H, W] uint16, ids 0..n-1.

    level: 0..1, comparable between images; 1 leaves one region. Raises DataError for more than 65,535.
    """
    merges = int(np.searchsorted(nested.merges.levels, level, side="right"))
    return _cut(nested, merges)


def cut_to(nested: Hierarchy, count: int) -> np.ndarray:
    """Exactly `count` regions, or all basins where there are fewer, [H, W] uint16, ids 0..n-1."""
    basins = len(nested.merges.levels) + 1
    return _cut(nested, basins - min(max(count, 1), basins))


def contour_map(nested: Hierarchy) -> np.ndarray:
    """The ultrametric contour map, [2H-1, 2W-1] uint16: the level, times 65,535, that removes a contour.

    Pixel (y, x) lies at (2y, 2x); between two pixels is the level at which their regions merge, 0 within a
    basin. The areas below a threshold are the regions at that level.
    """
    graph = _grid(nested.basins.shape)
    first, second = (nested.basins.ravel()[end] for end in graph.edge_list())
    levels = np.zeros(len(first))
    apart = np.flatnonzero(first != second)
    if len(apart):
        # Two basins are parted until the merge of their lowest common ancestor, whose level is the contour's.
        tree = hg.Tree(nested.merges.parents())
        meet = tree.lowest_common_ancestor(first[apart], second[apart])
        levels[apart] = nested.merges.levels[meet - tree.num_leaves()]
    contours = hg.graph_4_adjacency_2_khalimsky(graph, levels, nested.basins.shape)
    return np.round(np.clip(contours, 0, 1) * 65535).astype(np.uint16)


def _grid(shape: tuple[int, int]) -> hg.UndirectedGraph:
    return hg.get_4_adjacency_graph(shape)


def _oriented_watershed(contours: Contours) -> tuple[np.ndarray, Boundaries]:
    """Basins [H, W], and the boundaries between them, weaker where a contour does not run along them."""
    shape = contours.strength.shape
    graph = _grid(shape)
    # Without smoothing every grain of noise is a basin; with more, basins lose the contour's exact place.
    smooth = cv2.GaussianBlur(contours.strength, (0, 0), _SMOOTHING, borderType=cv2.BORDER_REFLECT)
    strength, across = smooth.astype(np.float64).ravel(), contours.across.astype(np.float64).ravel()
    first, second = graph.edge_list()
    between = (strength[first] + strength[second]) / 2
    # Mean strength counts a pixel edge as much as the contour there runs along the boundary: one that crosses
    # a boundary would otherwise strengthen it for its own sake.
    regions, mean = hg.oriented_watershed(graph, between, shape, across[first])
    length = hg.rag_accumulate_on_edges(regions, hg.Accumulators.counter, edge_weights=between)
    basins = np.asarray(hg.CptRegionAdjacencyGraph.get_vertex_map(regions), np.int64).reshape(shape)
    one, other = regions.edge_list()
    return basins, Boundaries(np.asarray(one), np.asarray(other), np.asarray(mean), np.asarray(length))


def _cut(nested: Hierarchy, merges: int) -> np.ndarray:
    left = len(nested.merges.levels) + 1 - merges
    if left > MOST_REGIONS:
        raise DataError("more regions than 16-bit ids", left, "ask for fewer, or cut at a higher level")
    return nested.merges.labels_after(merges)[nested.basins].astype(np.uint16)
