"""What the neighbours say of the labels: annotated segments that their like are labelled otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spml_dist import tables
from spml_dist.bank.rows import ANNOTATED
from spml_dist.data.format.keys import image_id_of
from spml_dist.errors import ConfigError
from spml_dist.progress import progress_bar
from spml_dist.retrieval import outlines
from spml_dist.retrieval.collection import Answer, Collection, Neighbour
from spml_dist.retrieval.segment_index import Search, Segment, SegmentIndex, allowing


@dataclass(frozen=True)
class Suspicion:
    """An annotated segment whose neighbours disagree with its label."""

    row: int
    suspicion: float
    """share of the neighbours' votes, weighted by similarity, that are not for its class"""
    suggested: int
    """the class with most votes"""
    support: float
    """its share"""
    neighbours: tuple[tuple[float, int], ...]
    """similarity and row"""


def audit(collection: Collection, k: int = 20, progress: bool = False) -> list[Suspicion]:
    """Annotated segments that most of their k nearest annotated ones of other pictures contradict.

    Most suspicious first; equally suspicious ones the nearer to their neighbours first. Raises ConfigError
    for an index with fewer than two annotated pictures.
    """
    index = collection.index
    rows = np.flatnonzero(index.column("source") == ANNOTATED)
    if len(np.unique(index.picture[rows])) < 2:
        raise ConfigError(
            "audit: fewer than two annotated pictures in the index", len(rows), "index packs with labels"
        )
    mask = np.zeros(len(index), bool)
    mask[rows] = True
    allowed, search = allowing(mask), Search(k)
    found = []
    for row in progress_bar(rows.tolist(), "auditing", unit="segments", shown=progress):
        similarity, near = index.among(
            index.vector(row), search, allowed, but_picture=int(index.picture[row])
        )
        each = judged(int(index.label[row]), similarity, index.label[near], len(index.classes))
        if each is not None:
            pairs = tuple(zip(similarity.tolist(), near.tolist(), strict=True))
            found.append(Suspicion(row, *each, pairs))
    return sorted(found, key=lambda each: (-each.suspicion, -each.neighbours[0][0], each.row))


def judged(
    label: int, similarity: np.ndarray, labels: np.ndarray, classes: int
) -> tuple[float, int, float] | None:
    """(suspicion, suggested class, its support) of a segment; None where its class has most votes."""
    votes = np.bincount(labels, np.maximum(similarity, 0), minlength=classes)
    total = votes.sum()
    best = int(votes.argmax())
    if not total or votes[label] >= votes[best]:
        return None
    return float(1 - votes[label] / total), best, float(votes[best] / total)


def records(collection: Collection, found: list[Suspicion]) -> list[dict[str, Any]]:
    """The list as plain data: labelling tools filter by `image` and show `box` and `point`."""
    classes, index = collection.classes, collection.index
    return [
        {
            "image": image_id_of(segment.key),
            "segment": segment.id,
            "box": list(segment.box),
            "point": list(point(index, segment)),
            "class": segment.label,
            "suggested": classes[each.suggested],
            "suspicion": round(each.suspicion, 6),
            "support": round(each.support, 6),
            "neighbours": [index.segment(row).id for _, row in each.neighbours],
        }
        for each in found
        for segment in [index.segment(each.row)]
    ]


def answers(collection: Collection, found: list[Suspicion]) -> list[Answer]:
    """The same as answers, for a page with pictures."""
    index = collection.index
    shown = []
    for each in found:
        segment = index.segment(each.row)
        neighbours = tuple(Neighbour(similarity, index.segment(row)) for similarity, row in each.neighbours)
        title = f"{segment.id}: {segment.label}, its neighbours {collection.classes[each.suggested]}"
        shown.append(Answer(title, neighbours, index.vector(each.row), segment))
    return shown


def table(collection: Collection, found: list[Suspicion]) -> str:
    """For people."""
    index, classes = collection.index, collection.classes
    rows = [
        (segment.id, segment.label, classes[each.suggested], f"{each.suspicion:.3f}", f"{each.support:.3f}")
        for each in found
        for segment in [index.segment(each.row)]
    ]
    return tables.table(("segment", "class", "suggested", "suspicion", "support"), rows)


def point(index: SegmentIndex, segment: Segment) -> tuple[int, int]:
    """(x, y) in pixels of a place well inside a segment; the middle of its box where it has no outline."""
    if not segment.outline:
        x0, y0, x1, y1 = segment.box
        return (x0 + x1) // 2, (y0 + y1) // 2
    geometry = outlines.geometry_of(segment.size, index.infos["cut"]["longer_side"], segment.grid)
    return outlines.middle(outlines.decode(segment.outline, segment.grid), geometry)
