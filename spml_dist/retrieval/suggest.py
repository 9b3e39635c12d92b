"""Where the next clicks help most: unlabelled segments that stand for many and are unlike labelled ones.

Facility location: a set of segments is worth Σ over the collection of area · the cosine to the nearest of the
set or of what is labelled; points are chosen one after the other by what they add to that.
"""

from __future__ import annotations

import numpy as np

from spml_dist import tables
from spml_dist.data.format.keys import image_id_of
from spml_dist.errors import ConfigError, RunError
from spml_dist.retrieval.audit import point
from spml_dist.retrieval.collection import Collection
from spml_dist.retrieval.segment_index import Search, Segment, allowing

SOME = 6_000
"""unlabelled segments that are looked at, spread evenly: their similarities take 144 MB"""
TILE = 1 << 12
"""labelled rows compared at a time"""


def suggest(collection: Collection, points: int, pack: str | None = None) -> list[tuple[Segment, float]]:
    """Unlabelled segments to click on, most helpful first, each with what it adds.

    pack: of this one alone. Raises ConfigError for fewer than one point, a pack that is not there, and where
    nothing is unlabelled; RunError for an index without outlines, which tells no places.
    """
    index = collection.index
    if points < 1:
        raise ConfigError("-n: points", points, "give at least 1")
    if "outlines" in index.infos["lacks"]:
        raise RunError(f"{index.folder}: has no outlines", None, "build it without --from-bank")
    label = index.label
    open_rows = np.flatnonzero((label < 0) & (index.column("area") > 0) & _of_pack(collection, pack))
    if not len(open_rows):
        raise ConfigError("suggest: no unlabelled segment", pack, "there is nothing to click on")
    some = open_rows[
        np.unique(np.linspace(0, len(open_rows) - 1, min(SOME, len(open_rows))).astype(np.int64))
    ]
    vectors = index.vectors[some].astype(np.float32)
    covered = _nearest(vectors, index.vectors, np.flatnonzero(label >= 0))
    chosen = greedy(vectors @ vectors.T, index.column("area")[some], covered, points)
    return [(index.segment(int(some[place])), gain) for place, gain in chosen]


def greedy(
    similarity: np.ndarray, weight: np.ndarray, covered: np.ndarray, count: int
) -> list[tuple[int, float]]:
    """Rows that add most, one after the other, with what each adds; fewer than `count` where nothing is left.

    similarity: [m, m] of candidates and rows; weight, covered: [m] of rows: importance, and similarity to
    what is known.
    """
    chosen: list[tuple[int, float]] = []
    taken = np.zeros(len(similarity), bool)
    for _ in range(min(count, len(similarity))):
        gains = np.empty(len(similarity), np.float32)
        for start in range(0, len(similarity), 512):  # in pieces: a copy of all similarities is large
            more = similarity[start : start + 512] - covered
            gains[start : start + 512] = np.maximum(more, 0, out=more) @ weight
        gains[taken] = -1
        best = int(gains.argmax())
        taken[best] = True
        chosen.append((best, float(gains[best])))
        covered = np.maximum(covered, similarity[best])
    return chosen


def points_json(collection: Collection, found: list[tuple[Segment, float]]) -> dict[str, list[list[int]]]:
    """{image id: [[class, x, y], ...]} as `pack` reads it.

    The class is a proposal: the classifier's, else that of the nearest labelled segment, else 0. Raises
    ConfigError where two packs hold one image id.
    """
    points: dict[str, list[list[int]]] = {}
    packs: dict[str, str] = {}
    for segment, _ in found:
        image = image_id_of(segment.key)
        if packs.setdefault(image, segment.pack) != segment.pack:
            remedy = "choose one with --pack"
            raise ConfigError(
                "suggest: packs hold one image id", f"{image} in {packs[image]} and {segment.pack}", remedy
            )
        points.setdefault(image, []).append(
            [proposed(collection, segment), *point(collection.index, segment)]
        )
    return points


def proposed(collection: Collection, segment: Segment) -> int:
    """Number of the class that a segment probably has."""
    index = collection.index
    if segment.predicted is not None:
        return index.classes.index(segment.predicted)
    _, near = index.among(index.vector(segment.row), Search(1), allowing(index.label >= 0))
    return int(index.label[near[0]]) if len(near) else 0


def table(collection: Collection, found: list[tuple[Segment, float]]) -> str:
    """For people."""
    rows = [
        (segment.id, f"{gain:.3f}", "{},{}".format(*point(collection.index, segment)), segment.predicted)
        for segment, gain in found
    ]
    return tables.table(("segment", "adds", "x,y", "proposed class"), rows)


def _of_pack(collection: Collection, pack: str | None) -> np.ndarray:
    index = collection.index
    numbers = [number for number, each in enumerate(index.packs) if pack in (None, each.name)]
    if not numbers:
        names = ", ".join(each.name for each in index.packs)
        raise ConfigError("--pack: not in the index", pack, f"choose from {names}")
    return np.isin(index.column("pack"), numbers)


def _nearest(vectors: np.ndarray, all_vectors: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """[m] float32: similarity to the nearest labelled row; 0 where there is none."""
    covered = np.zeros(len(vectors), np.float32)
    for start in range(0, len(labelled), TILE):
        part = all_vectors[labelled[start : start + TILE]].astype(np.float32)
        covered = np.maximum(covered, (vectors @ part.T).max(axis=1))
    return covered
