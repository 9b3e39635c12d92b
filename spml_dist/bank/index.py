"""FAISS: a flat index over given rows, and an inverted file over the slots of a store. The one file that
imports faiss."""

from __future__ import annotations

import numpy as np


def nearest(queries: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k' = min(k, r) rows of largest inner product: (similarity [q, k'] float32, index [q, k'] int64).

    queries: [q, C] float32; rows: [r, C] float32. Best first; equal similarities in the order of the rows,
    also where the k-th place is shared.
    """
    return search(build(rows), queries, k)


def build(rows: np.ndarray):
    """An index over rows [r, C] float32, for more searches than one; it keeps a copy of them."""
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.ascontiguousarray(rows, dtype=np.float32))
    return index


def search(index, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest`, among the rows of an index made by `build`."""
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    kept = min(k, index.ntotal)
    if len(queries) == 0 or kept == 0:
        return np.zeros((len(queries), kept), np.float32), np.zeros((len(queries), kept), np.int64)
    similarity, found = _deepening(index, queries, kept, kept + 1)
    return similarity[:, :kept], found[:, :kept]


def _deepening(index, queries: np.ndarray, kept: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Search `depth` deep, and deeper where rows as similar as the last one kept may be out of sight."""
    depth = min(depth, index.ntotal)
    similarity, found = _ordered(*index.search(queries, depth))
    if depth < index.ntotal:
        shared = np.flatnonzero(similarity[:, kept - 1] == similarity[:, -1])
        if len(shared):
            deeper = _deepening(index, queries[shared], kept, 4 * depth)
            similarity[shared, :kept], found[shared, :kept] = (part[:, :kept] for part in deeper)
    return similarity, found


def _ordered(similarity: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((found, -similarity), axis=-1)
    return np.take_along_axis(similarity, order, -1), np.take_along_axis(found, order, -1)


class Inverted:
    """An inverted file over slots 0..n-1 of a store: copies of its rows in half precision.

    An entry is current while the row that it copies is in its slot. Searching proposes current entries only;
    the caller computes their similarities from the rows.
    """

    def __init__(self, centroids: np.ndarray):
        """centroids: [lists, C] float32."""
        import faiss

        lists, dim = centroids.shape
        quantizer = faiss.IndexFlatIP(dim)
        quantizer.add(np.ascontiguousarray(centroids, np.float32))
        self.lists, self.centroids = lists, centroids
        self._index = faiss.IndexIVFScalarQuantizer(
            quantizer, dim, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._index.by_residual = False  # halves of the rows themselves: nothing is learnt but the centroids
        self._index.train(centroids)
        self._index.set_direct_map_type(faiss.DirectMap.Array)

    def __len__(self) -> int:
        return self._index.ntotal

    def extend(self, vectors: np.ndarray) -> None:
        """Entries for the next slots, [n, C] float32."""
        self._index.add(vectors)

    def replace(self, slots: np.ndarray, vectors: np.ndarray) -> None:
        """New copies for slots that have entries, [n] int64 and [n, C] float32."""
        if len(slots):
            self._index.update_vectors(slots, vectors)

    def probed(self, queries: np.ndarray, probes: int) -> tuple[np.ndarray, np.ndarray]:
        """The `probes` lists nearest to each query, as `search` takes them; many searches may share them."""
        return self._index.quantizer.search(queries, min(probes, self.lists))

    def search(
        self, queries: np.ndarray, k: int, probed: tuple[np.ndarray, np.ndarray], allowed: np.ndarray
    ) -> np.ndarray:
        """Slots of about the k nearest entries among those allowed, [q, k] int64, -1 where fewer were met.

        probed: what `probed` said of these queries; allowed: [len(self)] bool.
        """
        import faiss

        bits = np.packbits(allowed, bitorder="little")
        params = faiss.SearchParametersIVF(sel=faiss.IDSelectorBitmap(bits), nprobe=probed[1].shape[1])
        near, lists = (np.ascontiguousarray(part) for part in probed)
        queries = np.ascontiguousarray(queries)
        similarity = np.empty((len(queries), k), np.float32)
        found = np.empty((len(queries), k), np.int64)
        # The wrapper of this name takes no parameters, the method that it wraps does.
        pointers = map(faiss.swig_ptr, (lists, near, similarity, found))
        self._index.search_preassigned_c(len(queries), faiss.swig_ptr(queries), k, *pointers, False, params)
        return found


def centroids(vectors: np.ndarray, lists: int, seed: int) -> np.ndarray:
    """[lists, C] float32: unit vectors that k-means found in [n, C] float32, n ≥ lists."""
    import faiss

    kmeans = faiss.Kmeans(
        vectors.shape[1],
        lists,
        niter=8,
        seed=seed % (1 << 31),
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors),
    )
    kmeans.train(np.ascontiguousarray(vectors, np.float32))
    return kmeans.centroids
