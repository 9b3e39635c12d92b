"""FAISS: a flat index over given rows, and inverted files over the slots of a store, in main memory and on a
GPU. The one file that imports faiss."""

from __future__ import annotations

import numpy as np

from spml_dist.errors import RunError

ITERATIONS, SETTLING = 8, 2
"""of k-means; the last ones, in which no centroid starts again"""

TILE = 1 << 9
"""vectors assigned at a time: with 4,000 lists their similarities take 8 MB"""

ON_GPU = 2048
"""most lists and most answers of a search there"""


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

        self.lists, self.centroids = len(centroids), centroids
        self._index = _inverted(centroids)
        self._index.set_direct_map_type(faiss.DirectMap.Array)

    def __len__(self) -> int:
        return self._index.ntotal

    def extend(self, vectors: np.ndarray) -> None:
        """Entries for the next slots, [n, C] float32."""
        import faiss

        vectors, lists = np.ascontiguousarray(vectors), _assigned(vectors, self.centroids)
        self._index.add_core(len(vectors), faiss.swig_ptr(vectors), None, faiss.swig_ptr(lists))

    def replace(self, slots: np.ndarray, vectors: np.ndarray) -> None:
        """New copies for slots that have entries, [n] int64 and [n, C] float32."""
        import faiss

        slots, vectors = np.ascontiguousarray(slots), np.ascontiguousarray(vectors)
        lists = _assigned(vectors, self.centroids)
        codes = np.empty((len(slots), self._index.code_size), np.uint8)
        self._index.encode_vectors(len(slots), *map(faiss.swig_ptr, (vectors, lists, codes)))
        # What update_vectors does once it has found the lists, which takes it several times as long.
        pointers = map(faiss.swig_ptr, (slots, lists, codes))
        self._index.direct_map.update_codes(self._index.invlists, len(slots), *pointers)

    def probed(self, queries: np.ndarray, probes: int) -> tuple[np.ndarray, np.ndarray]:
        """The `probes` lists nearest to each query, as `search` takes them; many searches may share them."""
        import torch

        # Twice as fast as a search in the quantizer.
        similarity = torch.from_numpy(queries) @ torch.from_numpy(self.centroids).T
        return tuple(part.numpy() for part in similarity.topk(min(probes, self.lists), dim=1))

    def search(
        self, queries: np.ndarray, k: int, probed: tuple[np.ndarray, np.ndarray], allowed: np.ndarray
    ) -> np.ndarray:
        """Slots of about the k nearest entries among those allowed, [q, k] int64, -1 where fewer were met.

        Those as near as the next one are left out: which of them FAISS keeps depends on their order in its
        lists, and an index that was restored has another. probed: what `probed` said of these queries;
        allowed: [len(self)] bool.
        """
        import faiss

        bits = np.packbits(allowed, bitorder="little")
        params = faiss.SearchParametersIVF(sel=faiss.IDSelectorBitmap(bits), nprobe=probed[1].shape[1])
        near, lists = (np.ascontiguousarray(part) for part in probed)
        queries = np.ascontiguousarray(queries)
        similarity = np.empty((len(queries), k + 1), np.float32)
        found = np.empty((len(queries), k + 1), np.int64)
        # The wrapper of this name takes no parameters, the method that it wraps does.
        pointers = map(faiss.swig_ptr, (lists, near, similarity, found))
        self._index.search_preassigned_c(
            len(queries), faiss.swig_ptr(queries), k + 1, *pointers, False, params
        )
        found[similarity == similarity[:, -1:]] = -1
        return found[:, :k]


class Appended:
    """An inverted file for a GPU, on which FAISS neither changes nor removes nor filters entries.

    A row that is written anew gets one more entry, and only the latest of a slot proposes it. The caller
    asks for more than it needs and leaves out what may not answer.
    """

    def __init__(self, centroids: np.ndarray, gpu: int | None = None):
        """centroids: [lists, C] float32; gpu: its number, or None for main memory."""
        import faiss

        self.lists, self.centroids = len(centroids), centroids
        self._index, self._resources = _inverted(centroids), None
        if gpu is not None:
            self._resources = faiss.StandardGpuResources()
            self._index = faiss.index_cpu_to_gpu(self._resources, gpu, self._index)
        self.clear()

    def __len__(self) -> int:
        return len(self._latest)

    @property
    def crowded(self) -> bool:
        """Whether most entries are of rows that were written anew since."""
        return self._index.ntotal > 2 * len(self)

    def clear(self) -> None:
        """Forget all entries."""
        self._index.reset()
        self._slot, self._latest = np.zeros(0, np.int64), np.zeros(0, np.int64)
        """of each entry; of each slot"""

    def extend(self, vectors: np.ndarray) -> None:
        """Entries for the next slots, [n, C] float32."""
        slots = np.arange(len(self), len(self) + len(vectors))
        self._latest = np.concatenate([self._latest, np.zeros_like(slots)])
        self.replace(slots, vectors)

    def replace(self, slots: np.ndarray, vectors: np.ndarray) -> None:
        """New copies for slots that have entries, [n] int64 and [n, C] float32."""
        self._latest[slots] = self._index.ntotal + np.arange(len(slots))
        self._slot = np.concatenate([self._slot, slots])
        if len(slots):
            self._index.add(np.ascontiguousarray(vectors, np.float32))

    def search(self, queries: np.ndarray, depth: int, probes: int) -> np.ndarray:
        """Slots of about the nearest entries, [q, ≤ depth] int64, nearest first; -1 for entries that are out
        of date and where fewer were met.

        queries: [q, C] float32; probes: lists searched for each. A GPU gives `ON_GPU` of both at most.
        """
        depth = min(depth, self._index.ntotal, ON_GPU)
        if not len(queries) or not depth:
            return np.zeros((len(queries), depth), np.int64)
        self._index.nprobe = min(probes, self.lists, ON_GPU)
        _, entry = self._index.search(np.ascontiguousarray(queries, np.float32), depth)
        slot = self._slot[entry]
        return np.where((entry >= 0) & (self._latest[slot] == entry), slot, -1)


def require_gpu() -> None:
    """Raise RunError where FAISS cannot search on GPUs."""
    import faiss

    if not faiss.get_num_gpus():
        remedy = "install it with GPUs (make install EXTRA=gpu) or set bank.gpu_index=false"
        raise RunError("FAISS sees no GPU", None, remedy)


def centroids(vectors: np.ndarray, lists: int, seed: int) -> np.ndarray:
    """[lists, C] float32: unit vectors that spherical k-means found in [n, C] float32, n ≥ lists.

    A list of few vectors starts again at a vector that is far from every centroid: clusters that share a list
    come apart, and fewer lists have to be searched for the same recall.
    """
    chosen = np.random.default_rng(seed % (1 << 31)).permutation(len(vectors))[:lists]
    middles = vectors[chosen].astype(np.float32)
    for iteration in range(ITERATIONS):
        own = _assigned(vectors, middles)
        similarity = np.einsum("nc,nc->n", vectors, middles[own])
        middles = _means(vectors, own, middles)
        if iteration < ITERATIONS - SETTLING:
            few = np.flatnonzero(4 * lists * np.bincount(own, minlength=lists) < len(vectors))
            middles[few] = vectors[np.argsort(similarity, kind="stable")[: len(few)]]
    return middles


def _inverted(centroids: np.ndarray):
    """An empty inverted file over lists with these centroids, [lists, C]."""
    import faiss

    lists, dim = centroids.shape
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(np.ascontiguousarray(centroids, np.float32))
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, dim, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index.by_residual = False  # halves of the rows themselves: nothing is learnt but the centroids
    index.train(np.ascontiguousarray(centroids, np.float32))
    return index


def _assigned(vectors: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """[n] int64: the centroid nearest to each vector. Several times as fast as searching an index of them."""
    own = np.zeros(len(vectors), np.int64)
    tile = np.zeros((TILE, vectors.shape[1]), np.float32)
    for start in range(0, len(vectors), TILE):
        part = vectors[start : start + TILE]
        tile[: len(part)] = part  # a product of one shape: a vector's list does not depend on its company
        own[start : start + TILE] = (tile @ middles.T).argmax(axis=1)[: len(part)]
    return own


def _means(vectors: np.ndarray, own: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """[lists, C]: the directions of the lists' means; an empty list's stays."""
    order = np.argsort(own, kind="stable")
    lists, starts = np.unique(own[order], return_index=True)
    sums = np.add.reduceat(vectors[order], starts, axis=0)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    means = middles.copy()
    means[lists] = np.where(length > 0, sums / np.maximum(length, 1e-12), middles[lists])
    return means
