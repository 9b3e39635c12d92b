"""The labelled segments of a whole collection, to look for neighbours in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from spml_dist.bank.search.faiss_index import build, search
from spml_dist.config.labeling_models import LabelingConfig
from spml_dist.data.pack.each_part import each_part
from spml_dist.data.pack.pack import Rejection
from spml_dist.errors import DataError, RunError
from spml_dist.files.write import replacing
from spml_dist.inference import whole_image
from spml_dist.inference.read_outs import labels_of, prototypes_of
from spml_dist.labeling.image_views import embedded_at
from spml_dist.labeling.labelled_parts import PackParts, one_thread
from spml_dist.labeling.network import TrainedSegmenter
from spml_dist.records import Sample


@dataclass(frozen=True)
class SegmentIndex:
    """Labelled segments in a file. It pickles; a process reads the file when it first searches."""

    path: Path
    digest: str
    """of the file's content"""
    rows: tuple[int, ...]
    """[K] segments of each class"""

    def labels_near(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Classes of the k' = min(k, all) nearest segments of each query, [q, k'] int64, by exact search.

        queries: [q, C] float32 unit vectors.
        """
        index, labels = _opened(self.path, self.digest)
        return labels[search(index, queries, k)[1]]


@dataclass(frozen=True)
class LabelledSegments:
    """Reads a pack part by part for its labelled segments. Pickles."""

    parts: PackParts
    network: TrainedSegmenter
    settings: LabelingConfig

    def __call__(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """A part's prototypes [r, C] float32 and their classes [r] int64, image by image.

        An image that does not decode has none: whoever labels the pack names it.
        """
        vectors, labels = [], []
        for read in self.parts(part):
            if isinstance(read, Rejection):
                continue
            with one_thread():
                for rows, label in self._of_image(read[0]):
                    vectors.append(rows)
                    labels.append(label)
        if not vectors:
            return np.zeros((0, 0), np.float32), np.zeros(0, np.int64)
        return np.concatenate(vectors), np.concatenate(labels)

    def _of_image(self, sample: Sample) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        network = self.network
        if not (sample.semantic < network.num_classes).any():
            return
        for scale in self.settings.index_scales:
            embedded = embedded_at(network(), sample.image, scale, network.longer_side)
            segments = whole_image.segments(embedded, network.grid, network.iterations)
            rows, owner = prototypes_of(embedded, segments)
            label = labels_of(embedded, segments, sample.semantic, network.num_classes)[owner]
            yield rows[label >= 0], label[label >= 0]


def segment_index(read: LabelledSegments, path: Path, workers: int) -> SegmentIndex:
    """The index of a pack's labelled segments, read from `path` or made and written there.

    path: named after all that decides the content. Raises DataError for a pack without a labelled segment,
    RunError where the file cannot be written.
    """
    arrays = _read(path)
    if arrays is None:
        arrays = _collected(read, workers)
        _write(path, *arrays)
    content = hashlib.sha256()
    for array in arrays:
        content.update(np.ascontiguousarray(array).data)
    counts = np.bincount(arrays[1], minlength=read.network.num_classes)
    return SegmentIndex(path, content.hexdigest(), tuple(counts.tolist()))


def _collected(read: LabelledSegments, workers: int) -> tuple[np.ndarray, np.ndarray]:
    tars = len(read.parts.manifest.shards)
    # In the tars' order, which decides between neighbours that are equally near.
    kept = [part for part in each_part(read, tars, "labelled segments", workers) if len(part[1])]
    if not kept:
        raise DataError(
            f"{read.parts.shards}: no segment holds a labelled pixel",
            None,
            "nearest neighbours need labels: let a walk or class activation maps come first, or give --index",
        )
    return np.concatenate([part[0] for part in kept]), np.concatenate([part[1] for part in kept])


def _write(path: Path, vectors: np.ndarray, labels: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as aside, aside.open("wb") as file:
            np.savez(file, vectors=vectors, labels=labels)
    except OSError as error:
        remedy = "make room in the run's folder; the same command goes on"
        raise RunError(f"{path}: cannot be written", error.strerror, remedy) from error


def _read(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        with np.load(path) as arrays:
            return arrays["vectors"], arrays["labels"]
    except (OSError, ValueError, KeyError, BadZipFile):
        return None


@lru_cache(maxsize=1)
def _opened(path: Path, digest: str):
    arrays = _read(path)
    if arrays is None:
        raise RunError(f"{path}: gone or damaged while it was needed", None, "the same command makes it anew")
    return build(arrays[0]), arrays[1]
