"""A collection that can be asked: from a picture, a segment or a class to the nearest segments."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spml_dist.data.recipes.image_files import read_image
from spml_dist.errors import ConfigError, DataError, RunError
from spml_dist.inference.device import resolve_device
from spml_dist.model import export
from spml_dist.model.segmenter import Segmenter
from spml_dist.retrieval.build import cut_of, load_run
from spml_dist.retrieval.filters import Filter, class_number
from spml_dist.retrieval.image_segments import ImageSegments, cut_image
from spml_dist.retrieval.segment_index import Search, Segment, SegmentIndex, open_files
from spml_dist.run_folder import RunFolder

LEARNT = 50_000
"""rows of a class of which its mean is taken"""


@dataclass(frozen=True)
class Neighbour:
    """An answer."""

    similarity: float
    """cosine"""
    segment: Segment


@dataclass(frozen=True)
class Answer:
    """What one query found."""

    query: str
    """in words: a segment's id, a class, a file with the number of its segment"""
    neighbours: tuple[Neighbour, ...]
    """best first"""
    vector: np.ndarray = field(repr=False, compare=False)
    """[C] float32: what was searched for"""
    segment: Segment | None = None
    """the row that was asked about, if it was one"""
    image: tuple[np.ndarray, ImageSegments, int] | None = field(default=None, repr=False, compare=False)
    """the picture that was asked about, if it was a file, its segments, and the number of the one"""


class Collection:
    """What `open_index` gives."""

    def __init__(self, index: SegmentIndex, run: Path):
        self.index = index
        self._run = run
        self._network: Segmenter | None = None
        self._lock = threading.Lock()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by class id."""
        return self.index.classes

    def __len__(self) -> int:
        """Segments."""
        return len(self.index)

    def query(
        self,
        *,
        image: str | Path | np.ndarray | None = None,
        at: tuple[int, int] | None = None,
        segment: str | int | None = None,
        label: str | None = None,
        k: int = 20,
        only: Sequence[str] = (),
        tags: str = "",
        other_pictures: bool = False,
        per_picture: int | None = None,
        least_similarity: float = -1.0,
        area: tuple[float, float] = (0.0, 1.0),
    ) -> list[Answer]:
        """The nearest segments of a query, or of each segment of an image.

        One of: image, a file or [H, W, 3] uint8 RGB, of which all segments are asked about or the one at the
        pixel `at` = (x, y); segment, its id PACK/KEY/NUMBER or its row; label, a class, whose mean over its
        labelled rows is asked about. k: answers, 1 to 10,000. Filters: only, classes; tags, an expression
        such as "road and not water" over the tags of their pictures; other_pictures, none of the segment's
        own; per_picture, at most so many of one picture; least_similarity, a cosine; area, from and to,
        shares of the picture.

        Raises ConfigError for anything else, a class or segment that is not there and a pixel outside the
        picture; DataError for a file that is no image; RunError where a picture is asked about and the run of
        the index is no longer there.
        """
        if sum(each is not None for each in (image, segment, label)) != 1:
            raise ConfigError("query: not one of image, segment and class", None, "give exactly one of them")
        if at is not None and image is None:
            raise ConfigError("at: a pixel without a picture", at, "give image too")
        chosen = Filter(tuple(only), tags, *area)
        search = Search(k, per_picture, least_similarity)
        if segment is not None:
            return [self.like_row(self._row(segment), search, chosen, other_pictures)]
        if label is not None:
            return [self._like_class(label, search, chosen)]
        return list(self._like_image(image, at, search, chosen))

    def like_row(self, row: int, search: Search, chosen: Filter, other_pictures: bool = False) -> Answer:
        """Neighbours of a row, itself not among them."""
        mine = int(self.index.picture[row]) if other_pictures else None
        vector, known = self.index.vector(row), self.index.segment(row)
        found = self.index.search(vector, search, chosen, but_picture=mine, but_row=row)
        return Answer(known.id, self._neighbours(found), vector, segment=known)

    def like_vector(self, name: str, vector: np.ndarray, search: Search, chosen: Filter) -> Answer:
        """Neighbours of a unit vector, [C] float32."""
        return Answer(name, self._neighbours(self.index.search(vector, search, chosen)), vector)

    def cut(self, image: np.ndarray) -> ImageSegments:
        """The segments of a picture, [H, W, 3] uint8 RGB, by the network of the index."""
        with self._lock:  # one picture at a time: memory stays bounded, and the network is built once
            return cut_image(self._loaded(), image, cut_of(self.index.infos))

    def _like_image(
        self, image: object, at: tuple[int, int] | None, search: Search, chosen: Filter
    ) -> Iterator[Answer]:
        name = str(image) if isinstance(image, str | Path) else "image"
        pixels = image if isinstance(image, np.ndarray) else _read(Path(str(image)))
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise DataError(f"{name}: not [H, W, 3] uint8", list(pixels.shape), "give RGB")
        if at is not None:
            require_inside(at, pixels.shape[0], pixels.shape[1])
        segments = self.cut(pixels)
        numbers = range(len(segments.vector)) if at is None else [segments.at(*at)]
        for number in numbers:
            vector = segments.vector[number]
            found = self.index.search(vector, search, chosen)
            where = f"{name}#{number}"
            yield Answer(where, self._neighbours(found), vector, image=(pixels, segments, number))

    def _like_class(self, label: str, search: Search, chosen: Filter) -> Answer:
        rows = np.flatnonzero(self.index.label == class_number(label, self.classes, "--class"))
        if not len(rows):
            remedy = "choose another class, or index packs with labels"
            raise ConfigError("--class: no segment of the index is labelled so", repr(label), remedy)
        some = rows[np.unique(np.linspace(0, len(rows) - 1, min(LEARNT, len(rows))).astype(np.int64))]
        mean = self.index.vectors[some].astype(np.float32).mean(axis=0)
        return self.like_vector(
            f"class {label}", mean / max(float(np.linalg.norm(mean)), 1e-12), search, chosen
        )

    def _row(self, segment: str | int) -> int:
        return self.index.row_of(str(segment))

    def _neighbours(self, found: tuple[np.ndarray, np.ndarray]) -> tuple[Neighbour, ...]:
        pairs = zip(*(each.tolist() for each in found), strict=True)
        return tuple(Neighbour(similarity, self.index.segment(row)) for similarity, row in pairs)

    def _loaded(self) -> Segmenter:
        if self._network is None:
            run, digest = RunFolder(self._run), self.index.infos["model"]
            _, facts = load_run(run)
            if facts["model"] != digest:
                remedy = "give the run that it was built by (--run), or build it again"
                raise RunError(f"{run.export}: not the network of the index", facts["model"], remedy)
            self._network = export.load(run.export)[0].to(resolve_device("auto"))
        return self._network


def _read(path: Path) -> np.ndarray:
    try:
        return read_image(path)
    except DataError as error:  # its remedy is for somebody who packs
        raise DataError(error.what, error.value, "give a picture of 8 bits a channel") from error


def require_inside(at: tuple[int, int], height: int, width: int) -> None:
    """Raise ConfigError for a pixel outside a picture of this size."""
    x, y = at
    if not (0 <= x < width and 0 <= y < height):
        remedy = f"the picture is {width}×{height}: give x in 0..{width - 1}, y in 0..{height - 1}"
        raise ConfigError("--at: outside the picture", f"{x},{y}", remedy)


def open_index(folder: str | Path, run: str | Path | None = None, verify: bool | None = None) -> Collection:
    """An index of segments, ready to be asked: `open_index(DIR).query(segment="sample-train/0001/3")`.

    folder: what `spml-dist index` wrote; run: folder of the run whose network cuts new pictures, None = where
    it was; verify: compare the content of all files with their digests, None = where that is quick. Nothing
    is read as a whole. Raises RunError for a folder without an index and for files that disagree.
    """
    index = open_files(folder, verify)
    return Collection(index, Path(index.infos["run"] if run is None else run))
