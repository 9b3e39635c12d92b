"""Is the trained embedding worth it? Labelled segments by their neighbours, beside a plain backbone's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spml_dist import tables
from spml_dist.errors import ConfigError, DataError
from spml_dist.progress import progress_bar
from spml_dist.retrieval import outlines
from spml_dist.retrieval.collection import Collection
from spml_dist.retrieval.image_segments import pooled
from spml_dist.retrieval.plain_backbone import PlainBackbone, plain_backbone
from spml_dist.run_folder import MODEL_INFO, RunFolder

TILE = 1 << 10
"""queries compared at a time"""


@dataclass(frozen=True)
class Scores:
    """How good neighbours are, by class and over all (the last entry); nan where nothing was asked."""

    precision: np.ndarray
    """[K + 1] share of the k nearest that are of their query's class"""
    recall: np.ndarray
    """[K + 1] share of the queries that find their class among the k nearest"""
    purity: np.ndarray
    """[K + 1] share of the answers of a class that were given to queries of it"""


def score(
    collection: Collection, k: int = 20, pictures: int = 500, backbone: str | None = None
) -> dict[str, Any]:
    """Numbers of the labelled rows of some pictures, spread evenly over the collection, as plain data.

    Each is searched among those of the other pictures, all compared. backbone: timm's name of the network
    whose ImageNet features stand beside, None = the run's own, or one whose weights are installed; where none
    can be had "plain" is null and "reason" says why. Raises ConfigError for an index without labelled rows.
    """
    index = collection.index
    rows = _rows(collection, pictures)
    label, picture = index.label[rows].astype(np.int64), index.picture[rows]
    own = scores(index.vectors[rows].astype(np.float32), label, picture, k, len(index.classes))
    result: dict[str, Any] = {"k": k, "rows": len(rows), "pictures": len(np.unique(picture))}
    result |= {"classes": list(index.classes), "trained": _plain_data(own), "plain": None, "reason": None}
    try:
        if not index.segment(int(rows[0])).outline:
            raise ConfigError(
                "--score: this index has no outlines to look at", None, "build it without --from-bank"
            )
        network = plain_backbone(backbone, _own_backbone(collection))
        vectors = _plain_vectors(collection, rows, network)
    except (ConfigError, DataError) as problem:
        if backbone is not None:  # it was asked for by name
            raise
        return result | {"reason": str(problem)}
    beside = scores(vectors, label, picture, k, len(index.classes))
    return result | {"plain": _plain_data(beside), "backbone": network.name}


def scores(vectors: np.ndarray, label: np.ndarray, picture: np.ndarray, k: int, classes: int) -> Scores:
    """Of rows searched among those of other pictures. vectors: [n, C] float32 unit; label, picture: [n]."""
    hits, asked, found = (np.zeros(classes) for _ in range(3))
    answers, right = np.zeros(classes), np.zeros(classes)
    for start in range(0, len(vectors), TILE):
        part = slice(start, start + TILE)
        similarity = vectors[part] @ vectors.T
        similarity[picture[part, None] == picture] = -np.inf
        near = nearest(similarity, k)
        there = np.take_along_axis(similarity, near, 1) > -np.inf
        agrees = there & (label[near] == label[part, None])
        share = agrees.sum(axis=1) / np.maximum(there.sum(axis=1), 1)
        for total, values in ((hits, share), (asked, None), (found, agrees.any(axis=1))):
            total += np.bincount(label[part], values, minlength=classes)
        answers += np.bincount(label[near][there], minlength=classes)
        right += np.bincount(label[near][agrees], minlength=classes)
    return Scores(_shares(hits, asked), _shares(found, asked), _shares(right, answers))


def nearest(similarity: np.ndarray, k: int) -> np.ndarray:
    """[q, ≤ k] int64: columns by similarity, best first, equal ones by their order. similarity: [q, n]."""
    k = min(k, similarity.shape[1])
    least = np.partition(similarity, -k, axis=1)[:, -k]  # to sort whole rows takes ten times as long
    found = np.empty((len(similarity), k), np.int64)
    for row, (values, enough) in enumerate(zip(similarity, least, strict=True)):
        columns = np.flatnonzero(values >= enough)
        found[row] = columns[np.argsort(-values[columns], kind="stable")[:k]]
    return found


def table(result: dict[str, Any]) -> str:
    """What `score` returns, for people, in per cent."""
    k, columns = result["k"], [result["trained"], *([result["plain"]] if result["plain"] else [])]
    titles = [f"precision@{k}", f"recall@{k}", "purity"]
    heads = [*titles, *(f"{title}, plain" for title in titles)] if len(columns) > 1 else titles
    rows = [
        (
            name,
            *(_percent(each[title][at]) for each in columns for title in ("precision", "recall", "purity")),
        )
        for at, name in enumerate([*result["classes"], "all"])
    ]
    head = f"{result['rows']:,} labelled segments of {result['pictures']:,} pictures, in per cent"
    if result["plain"]:
        head += f"; plain: ImageNet features of {result['backbone']} at the same segments"
    reason = [f"no plain features: {result['reason']}"] if result["reason"] else []
    return "\n".join([head, "", tables.table(("class", *heads), rows), *reason])


def _rows(collection: Collection, pictures: int) -> np.ndarray:
    index = collection.index
    labelled = np.flatnonzero(index.label >= 0)
    if not len(labelled):
        raise ConfigError("--score: no segment of the index is labelled", None, "index packs with labels")
    numbers = np.unique(index.picture[labelled])
    chosen = numbers[
        np.unique(np.linspace(0, len(numbers) - 1, min(pictures, len(numbers))).astype(np.int64))
    ]
    return labelled[np.isin(index.picture[labelled], chosen)]


def _plain_vectors(collection: Collection, rows: np.ndarray, network: PlainBackbone) -> np.ndarray:
    """[n, F] float32: unit vectors of the same segments, a picture at a time; its rows lie side by side."""
    index, vectors = collection.index, []
    numbers = index.picture[rows]
    pictures = np.split(rows, np.flatnonzero(np.diff(numbers)) + 1)
    for own in progress_bar(pictures, "plain features", unit="pictures"):
        segments = [index.segment(int(row)) for row in own]
        sample, _ = index.pictures.read(*segments[0].place, segments[0].key)
        cells = np.full(segments[0].grid, -1, np.int64)
        for number, segment in enumerate(segments):
            cells[outlines.decode(segment.outline, segment.grid)] = number
        embedded = network.embedded(sample.image, index.infos["cut"]["longer_side"])
        vectors.append(pooled(embedded, cells, len(segments)))
    return np.concatenate(vectors)


def _own_backbone(collection: Collection) -> str | None:
    path = RunFolder(Path(collection.index.infos["run"])).export / MODEL_INFO
    try:
        return json.loads(path.read_text(encoding="utf-8"))["model"]["backbone"]
    except (OSError, ValueError, KeyError):
        return None


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.append(part, part.sum()), np.append(whole, whole.sum())
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _plain_data(each: Scores) -> dict[str, list[float | None]]:
    return {
        name: [None if np.isnan(value) else float(value) for value in getattr(each, name)]
        for name in ("precision", "recall", "purity")
    }


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
