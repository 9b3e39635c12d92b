"""FAISS: a flat index over given rows, and inverted files over the slots of a store, in main memory and on a
GPU. The one file that imports faiss."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from spml_dist.bank.search.centroids import assigned
from spml_dist.errors import RunError

ON_GPU = 2048
"""most lists and most answers of a search there"""

DEPTH = 1 << 10
"""entries fetched for a query where FAISS cannot filter"""


def nearest(queries: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k' = min(k, r) rows of largest inner product: (similarity [q, k'] float32, index [q, k'] int64).

    queries: [q, C] float32; rows: [r, C] float32. Best first; equal similarities in the order of the rows,
    also where the k-th place is shared.
    """
    return search(build(rows), queries, k)


def build(rows: np.ndarray):
    """An index over rows [r, C] float32, for more searches than one; it keeps a copy of them."""
    faiss = faiss_module()
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(np.ascontiguousarray(rows, dtype=np.float32))
    return index


def search(index, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest`, among the rows of an index made by `build`."""
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    kept = min(k, index.ntotal)
    if len(queries) == 0 or kept == 0:
        return np.zeros((len(queries), kept), np.float32), np.zeros((len(queries), kept), np.int64)
    similarity, place = _deepening(index, queries, kept, kept + 1)
    return similarity[:, :kept], place[:, :kept]


def _deepening(index, queries: np.ndarray, kept: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Search `depth` deep, and deeper where rows as similar as the last one kept may be out of sight."""
    depth = min(depth, index.ntotal)
    similarity, place = _ordered(*index.search(queries, depth))
    if depth < index.ntotal:
        shared = np.flatnonzero(similarity[:, kept - 1] == similarity[:, -1])
        if len(shared):
            deeper = _deepening(index, queries[shared], kept, 4 * depth)
            similarity[shared, :kept], place[shared, :kept] = (part[:, :kept] for part in deeper)
    return similarity, place


def _ordered(similarity: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((place, -similarity), axis=-1)
    return np.take_along_axis(similarity, order, -1), np.take_along_axis(place, order, -1)


class InvertedLists(Protocol):
    """An inverted file over slots 0..n-1 of a store: copies of its rows in half precision.

    An entry is current while the row that it copies is in its slot. Searching proposes slots; the caller
    computes their similarities from the rows.
    """

    lists: int
    centroids: np.ndarray
    """[lists, C] float32"""

    def __len__(self) -> int:
        """Slots that have entries."""

    @property
    def crowded(self) -> bool:
        """Whether most entries are out of date, so that all are better written again after `clear`."""

    def clear(self) -> None:
        """Forget all entries."""

    def extend(self, vectors: np.ndarray) -> None:
        """Entries for the next slots, [n, C] float32."""

    def replace(self, slots: np.ndarray, vectors: np.ndarray) -> None:
        """New copies for slots that have entries, [n] int64 and [n, C] float32."""

    def search(
        self, queries: np.ndarray, k: int, probed: tuple[np.ndarray, np.ndarray], allowed: np.ndarray
    ) -> np.ndarray:
        """Slots of about the k nearest entries among those allowed, [q, k] int64, -1 where fewer were met.

        queries: [q, C] float32; probed: similarities and numbers of the lists to search, [q, probes] each, as
        `nearest_lists` gives them; allowed: [len(self)] bool.
        """


def nearest_lists(centroids: np.ndarray, queries: np.ndarray, probes: int) -> tuple[np.ndarray, np.ndarray]:
    """The `probes` lists nearest to each query: similarities and numbers, [q, probes] float32 and int64."""
    import torch

    # Twice as fast as a search in FAISS's quantizer, and shared by the searches of all kinds.
    similarity = torch.from_numpy(queries) @ torch.from_numpy(centroids).T
    values, lists = similarity.topk(min(probes, len(centroids)), dim=1)
    return values.numpy(), lists.numpy()


class InvertedFile:
    """`InvertedLists` in main memory, where FAISS overwrites entries and filters while it searches."""

    crowded = False

    def __init__(self, centroids: np.ndarray):
        """centroids: [lists, C] float32."""
        self.lists, self.centroids = len(centroids), centroids
        self.clear()

    def __len__(self) -> int:
        return self._index.ntotal

    def clear(self) -> None:
        faiss = faiss_module()
        self._index = _inverted(self.centroids)
        self._index.set_direct_map_type(faiss.DirectMap.Array)

    def extend(self, vectors: np.ndarray) -> None:
        faiss = faiss_module()
        vectors, lists = np.ascontiguousarray(vectors), assigned(vectors, self.centroids)
        self._index.add_core(len(vectors), faiss.swig_ptr(vectors), None, faiss.swig_ptr(lists))

    def replace(self, slots: np.ndarray, vectors: np.ndarray) -> None:
        faiss = faiss_module()
        slots, vectors = np.ascontiguousarray(slots), np.ascontiguousarray(vectors)
        lists = assigned(vectors, self.centroids)
        codes = np.empty((len(slots), self._index.code_size), np.uint8)
        self._index.encode_vectors(len(slots), *map(faiss.swig_ptr, (vectors, lists, codes)))
        # What update_vectors does once it has found the lists, which takes it several times as long.
        pointers = map(faiss.swig_ptr, (slots, lists, codes))
        self._index.direct_map.update_codes(self._index.invlists, len(slots), *pointers)

    def search(
        self, queries: np.ndarray, k: int, probed: tuple[np.ndarray, np.ndarray], allowed: np.ndarray
    ) -> np.ndarray:
        """As `InvertedLists.search`. Entries as near as the next one beyond k are left out: which of them
        FAISS keeps depends on their order in its lists, and a file that was restored has another."""
        faiss = faiss_module()
        bits = np.packbits(allowed, bitorder="little")
        params = faiss.SearchParametersIVF(sel=faiss.IDSelectorBitmap(bits), nprobe=probed[1].shape[1])
        values, lists = (np.ascontiguousarray(part) for part in probed)
        queries = np.ascontiguousarray(queries)
        similarity = np.empty((len(queries), k + 1), np.float32)
        slots = np.empty((len(queries), k + 1), np.int64)
        # The wrapper of this name takes no parameters, the method that it wraps does.
        pointers = map(faiss.swig_ptr, (lists, values, similarity, slots))
        self._index.search_preassigned_c(
            len(queries), faiss.swig_ptr(queries), k + 1, *pointers, False, params
        )
        slots[similarity == similarity[:, -1:]] = -1
        return slots[:, :k]


class GpuInvertedFile:
    """`InvertedLists` on a GPU, where FAISS neither changes nor removes nor filters entries.

    A row that is written anew gets one more entry, and only the latest of a slot proposes it. A search
    fetches more entries than it needs and drops those that are out of date or not allowed.
    """

    def __init__(self, centroids: np.ndarray, gpu: int | None = None):
        """centroids: [lists, C] float32; gpu: its number, or None for main memory, where it is tested."""
        faiss = faiss_module()
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
        return self._index.ntotal > 2 * len(self)

    def clear(self) -> None:
        self._index.reset()
        self._slot, self._latest = np.zeros(0, np.int64), np.zeros(0, np.int64)
        """of each entry; of each slot"""

    def extend(self, vectors: np.ndarray) -> None:
        slots = np.arange(len(self), len(self) + len(vectors))
        self._latest = np.concatenate([self._latest, np.zeros_like(slots)])
        self.replace(slots, vectors)

    def replace(self, slots: np.ndarray, vectors: np.ndarray) -> None:
        self._latest[slots] = self._index.ntotal + np.arange(len(slots))
        self._slot = np.concatenate([self._slot, slots])
        if len(slots):
            self._index.add(np.ascontiguousarray(vectors, np.float32))

    def search(
        self, queries: np.ndarray, k: int, probed: tuple[np.ndarray, np.ndarray], allowed: np.ndarray
    ) -> np.ndarray:
        """As `InvertedLists.search`, of at most `ON_GPU` lists; nothing for a query of which too few of the
        fetched entries are left."""
        result = np.full((len(queries), k), -1, np.int64)
        depth = min(max(k, DEPTH), self._index.ntotal, ON_GPU)
        if not len(queries) or not depth:
            return result
        self._index.nprobe = min(probed[1].shape[1], ON_GPU)
        _, entry = self._index.search(np.ascontiguousarray(queries, np.float32), depth)
        slot = self._slot[entry]
        proposed = (entry >= 0) & (self._latest[slot] == entry) & allowed[slot]
        # Where the fetch was cut off and too few are left, nearer rows than these may lie beyond it.
        if depth < self._index.ntotal:
            proposed[(entry[:, -1] >= 0) & (proposed.sum(axis=1) < k)] = False
        nearest_first = np.argsort(~proposed, axis=1, kind="stable")[:, :k]
        kept = np.take_along_axis(np.where(proposed, slot, -1), nearest_first, axis=1)
        result[:, : kept.shape[1]] = kept
        return result


def require_gpu() -> None:
    """Raise RunError where FAISS cannot search on GPUs."""
    faiss = faiss_module()
    if not faiss.get_num_gpus():
        remedy = "install it with GPUs (make install EXTRA=gpu) or set bank.gpu_index=false"
        raise RunError("FAISS sees no GPU", None, remedy)


def _inverted(centroids: np.ndarray):
    """An empty inverted file over lists with these centroids, [lists, C]."""
    faiss = faiss_module()
    lists, dim = centroids.shape
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(np.ascontiguousarray(centroids, np.float32))
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, dim, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index.by_residual = False  # halves of the rows themselves: nothing is learnt but the centroids
    index.train(np.ascontiguousarray(centroids, np.float32))
    return index


def faiss_module() -> Any:
    """FAISS, when it is first used: its stubs lack much of what is called here."""
    import faiss

    return faiss
