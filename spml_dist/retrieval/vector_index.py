"""The FAISS index of a collection: its kind by its size, built in bounded memory, mapped into memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spml_dist.bank.search.faiss_index import faiss_module
from spml_dist.errors import RunError

EXACT, PLAIN, SCALAR = 50_000, 500_000, 20_000_000
"""rows up to which all are compared, lists hold vectors, and lists hold bytes; beyond, codes of products"""
KINDS = ("exact", "ivf", "ivf-sq", "ivf-pq")
CHUNK = 1 << 16
"""rows that are added at a time"""
LEARNT = 64
"""rows for each list of which its middle is learnt"""
QUERIES, RECALL_AT = 200, 20
"""rows whose neighbours measure the recall"""
ENOUGH = 0.99
"""recall for which no more lists are searched"""
SETTLING, GAIN = 16, 0.002
"""from so many lists on, twice as many have to gain this recall"""
DEEPER = 4
"""candidates fetched for each answer: they are ordered again by the vectors themselves"""


@dataclass(frozen=True)
class Built:
    """A built index in words for index_infos.json."""

    kind: str
    key: str
    """as FAISS's factory names it"""
    probes: int
    """lists that a search looks into, 0 where there are none"""
    recall: float
    """share of the true RECALL_AT nearest that a search finds, against every row compared"""


def kind_for(rows: int) -> str:
    """The kind of index that so many rows get if nobody says otherwise."""
    return next(
        (kind for kind, most in zip(KINDS, (EXACT, PLAIN, SCALAR), strict=False) if rows <= most), KINDS[-1]
    )


def build(vectors: np.ndarray, path: Path, kind: str | None = None) -> Built:
    """Index [n, C] float16 rows, which may be mapped into memory, and write the index.

    kind: one of KINDS, None = by the number of rows.
    """
    faiss = faiss_module()
    rows, dim = vectors.shape
    kind = kind or kind_for(rows)
    key = _key(kind, rows, dim)
    index = faiss.index_factory(dim, key, faiss.METRIC_INNER_PRODUCT)
    if kind != "exact":
        index.cp.seed, index.cp.spherical = 1234, True
        index.train(_some(vectors, max(LEARNT * index.nlist, 1000)))
    for start in range(0, rows, CHUNK):
        index.add(vectors[start : start + CHUNK].astype(np.float32))
    probes, recall = (0, 1.0) if kind == "exact" or not rows else _calibrated(index, vectors)
    faiss.write_index(index, str(path))
    return Built(kind, key, probes, recall)


def open_mapped(path: Path, kind: str) -> Any:
    """The index, its content left on the disk until it is needed. Raises RunError for a damaged one."""
    faiss = faiss_module()
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if kind == "exact" else faiss.IO_FLAG_MMAP)
    except RuntimeError as problem:
        raise RunError(
            f"{path}: FAISS cannot read it", str(problem).splitlines()[-1], "build it again"
        ) from problem


def candidates(
    index: Any, queries: np.ndarray, depth: int, probes: int, allowed: np.ndarray | None = None
) -> np.ndarray:
    """About the `depth` nearest rows of each query, [q, depth] int64, -1 where fewer were met.

    queries: [q, C] float32; probes: lists to search, 0 for an index without; allowed: bits of the rows that
    may answer, as `np.packbits(..., bitorder="little")` gives them, None = all.
    """
    faiss = faiss_module()
    chosen = {} if allowed is None else {"sel": faiss.IDSelectorBitmap(allowed)}
    if probes:
        parameters = faiss.SearchParametersIVF(nprobe=min(probes, index.nlist), **chosen)
    else:
        parameters = faiss.SearchParameters(**chosen)
    return index.search(np.ascontiguousarray(queries, np.float32), depth, params=parameters)[1]


def ordered(
    vectors: np.ndarray, query: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of some rows by their own vectors: (similarity float32, row int64), best first, equal ones
    by their number.

    vectors: [n, C] float16; query: [C] float32; rows: int64, -1 = none.
    """
    rows = np.sort(rows[rows >= 0])  # in the order of the disk
    similarity = vectors[rows].astype(np.float32) @ query
    order = np.argsort(-similarity, kind="stable")[:k]
    return similarity[order], rows[order]


def exact(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """The k nearest rows of each query, all rows compared, [q, min(k, n)] int64; in bounded memory."""
    best = np.full((len(queries), 0), -np.inf, np.float32)
    place = np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(vectors), CHUNK):
        part = queries @ vectors[start : start + CHUNK].astype(np.float32).T
        best = np.concatenate([best, part], axis=1)
        rows = np.broadcast_to(np.arange(start, start + part.shape[1]), part.shape)
        place = np.concatenate([place, rows], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, place = np.take_along_axis(best, order, 1), np.take_along_axis(place, order, 1)
    return place


def _key(kind: str, rows: int, dim: int) -> str:
    lists = max(1, 1 << math.ceil(math.log2(max(math.sqrt(rows), 1))))
    lists = min(lists, max(1, rows // LEARNT))
    if kind == "ivf-pq":
        parts = next(parts for parts in range(max(dim // 2, 1), 0, -1) if dim % parts == 0)
        return f"IVF{lists},PQ{parts}x4"
    return {"exact": "Flat", "ivf": f"IVF{lists},Flat", "ivf-sq": f"IVF{lists},SQ8"}[kind]


def _some(vectors: np.ndarray, count: int) -> np.ndarray:
    """Rows drawn evenly, [≤ count, C] float32."""
    rows = np.unique(np.linspace(0, len(vectors) - 1, min(count, len(vectors))).astype(np.int64))
    return vectors[rows].astype(np.float32)


def _calibrated(index: Any, vectors: np.ndarray) -> tuple[int, float]:
    """The fewest lists, by doubling, whose search finds ENOUGH, and what it finds."""
    queries = _some(vectors, QUERIES)
    k = min(RECALL_AT, len(vectors))
    truth = exact(vectors, queries, k)
    probes, before = 1, -1.0
    while True:
        found = candidates(index, queries, min(DEEPER * k, len(vectors)), probes)
        best = [ordered(vectors, query, rows, k)[1] for query, rows in zip(queries, found, strict=True)]
        hits = [len(np.intersect1d(*pair)) for pair in zip(best, truth, strict=True)]
        recall = float(np.mean(hits) / k)
        # Codes of products lose some however many lists are searched.
        settled = probes >= SETTLING and recall - before < GAIN
        if recall >= ENOUGH or settled or probes >= index.nlist:
            return min(probes, index.nlist), recall
        probes, before = 2 * probes, recall
