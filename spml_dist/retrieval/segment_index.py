"""An index that was opened: what its rows are, and which are nearest to a vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spml_dist.errors import ConfigError, RunError
from spml_dist.retrieval import layout, outlines, vector_index
from spml_dist.retrieval.build import pack_of
from spml_dist.retrieval.filters import Filter, passing
from spml_dist.retrieval.pictures import Pictures
from spml_dist.retrieval.rows import SOURCES, Pack, schema, segment_id, tags_of

MOST = 10_000
"""answers to a query"""
FEW = 20_000
"""rows that pass a filter up to which all of them are compared"""
Allowed = tuple[np.ndarray | None, np.ndarray | None]
"""rows that may answer: their bits, None = all; or their numbers, where they are few"""
KEPT_FILTERS = 32
"""filters whose rows are remembered"""


@dataclass(frozen=True)
class Segment:
    """One row of an index. Its id is stable, its row only until the index is built again."""

    row: int
    pack: str
    key: str
    number: int
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 in pixels, x1 and y1 exclusive"""
    area: float
    """share of the picture"""
    size: tuple[int, int]
    """height and width of the picture in pixels"""
    label: str | None
    """its class"""
    source: str
    """where that comes from: none, annotated, propagated"""
    confidence: float
    predicted: str | None
    """its class by the classifier"""
    tags: tuple[str, ...] | None
    """of its picture; None = unknown"""
    place: tuple[int, int, int] = field(repr=False)
    """pack, shard, sample"""
    grid: tuple[int, int] = field(repr=False)
    outline: bytes = field(repr=False)

    @property
    def id(self) -> str:
        return segment_id(self.pack, self.key, self.number)


@dataclass(frozen=True)
class Search:
    """How a search is limited beside its filter. Raises ConfigError for what limits nothing or everything."""

    k: int = 20
    per_picture: int | None = None
    """answers of one picture at most"""
    least_similarity: float = -1.0

    def __post_init__(self) -> None:
        if self.per_picture is not None and self.per_picture < 1:
            raise ConfigError("--per-picture", self.per_picture, "give at least 1")
        if not -1 <= self.least_similarity <= 1:
            raise ConfigError("--least", self.least_similarity, "give a cosine, -1 to 1")


class SegmentIndex:
    """An index opened by `open_index`; its files are mapped into memory. Searches may run side by side."""

    def __init__(self, folder: Path, infos: dict[str, Any]):
        self.folder, self.infos = folder, infos
        self.classes: tuple[str, ...] = tuple(infos["classes"])
        self.packs: tuple[Pack, ...] = tuple(map(pack_of, infos["packs"]))
        self.pictures = Pictures(self.packs)
        self.vectors: np.ndarray = np.load(folder / layout.VECTORS, mmap_mode="r")
        rows = pa.ipc.open_file(pa.memory_map(str(folder / layout.ROWS)))
        batches = [rows.get_batch(number) for number in range(rows.num_record_batches)]
        self._schema = rows.schema
        # Kept, as to make them again for every row takes longer than to read it.
        self._columns = [
            dict(zip(rows.schema.names, map(_mapped, batch.columns), strict=True)) for batch in batches
        ]
        self._firsts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._index = vector_index.open_mapped(folder / layout.INDEX, infos["kind"])
        self._allowed = lru_cache(maxsize=KEPT_FILTERS)(self._filtered)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def require_columns(self) -> None:
        """Raise ValueError unless the rows are those of as many classes as the infos name."""
        if not self._schema.equals(schema(len(self.classes))):
            raise ValueError(f"{layout.ROWS} has not the columns of {len(self.classes)} classes")

    def column(self, name: str) -> np.ndarray:
        """All values of a numeric column of `rows.schema`, or [N, bytes] uint8 of the tags."""
        return np.concatenate([columns[name] for columns in self._columns])

    @cached_property
    def label(self) -> np.ndarray:
        """[N] int16: class, -1 = none"""
        return self.column("label")

    @cached_property
    def picture(self) -> np.ndarray:
        """[N] int64: a number for the picture of each row"""
        pack, shard, place = (self.column(name).astype(np.int64) for name in ("pack", "shard", "place"))
        return (pack << 48) | (shard << 24) | place

    def segment(self, row: int) -> Segment:
        """What is known of a row."""
        columns, at = self._place(row)
        values = {name: _plain(column[at]) for name, column in columns.items()}
        return _segment(row, values, self.packs, self.classes)

    def row_of(self, name: str) -> int:
        """The row of a segment's id, PACK/KEY/NUMBER, or of a row's number as text.

        Raises ConfigError for a segment that the index does not hold.
        """
        parts = name.rsplit("/", 2)
        if name.isdecimal() and len(name) < 19 and int(name) < len(self):
            return int(name)
        if len(parts) == 3 and parts[2].isdecimal() and len(parts[2]) < 10:
            packs = [number for number, pack in enumerate(self.packs) if pack.name == parts[0]]
            rows = np.flatnonzero(
                (self.column("segment") == int(parts[2])) & np.isin(self.column("pack"), packs)
            )
            found = [row for row in rows.tolist() if self._key(row) == parts[1]]
            if found:
                return found[0]
        remedy = "name it as answers do, PACK/KEY/NUMBER"
        raise ConfigError("--segment: no segment of the index", repr(name), remedy)

    def path(self, segment: Segment) -> str:
        """The outline as an SVG path in pixels; the box where the index has no outlines."""
        if not segment.outline:
            x0, y0, x1, y1 = segment.box
            return f"M{x0} {y0}L{x1} {y0}L{x1} {y1}L{x0} {y1}Z"
        where = outlines.pixels_of(segment.size, self.infos["cut"]["longer_side"], segment.grid)
        return outlines.path(outlines.decode(segment.outline, segment.grid), where)

    def vector(self, row: int) -> np.ndarray:
        """[C] float32"""
        return self.vectors[row].astype(np.float32)

    def of_picture(self, row: int) -> np.ndarray:
        """All rows of a row's picture; they lie side by side."""
        return np.flatnonzero(self.picture == self.picture[row])

    def search(
        self,
        query: np.ndarray,
        search: Search = Search(),
        chosen: Filter = Filter(),  # noqa: B008
        *,
        but_picture: int | None = None,
        but_row: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The nearest rows: (similarity [n] float32, row [n] int64), best first, equal ones by row; n ≤ k.

        query: [C] float32, a unit vector; but_picture: of which none answers, by `picture`; but_row: that
        does not answer. Raises ConfigError for k beyond MOST and for a filter that cannot be read.
        """
        if not 1 <= search.k <= MOST:
            raise ConfigError("-k: answers to a query", search.k, f"give 1 to {MOST:,}")
        return self._search(query, search, *self._allowed(chosen), but_picture, but_row)

    def among(
        self, query: np.ndarray, search: Search, allowed: Allowed, *, but_picture: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `search`, among the rows that `allowing` was given."""
        return self._search(query, search, *allowed, but_picture, None)

    def _search(
        self,
        query: np.ndarray,
        search: Search,
        allowed: np.ndarray | None,
        rows: np.ndarray | None,
        but_picture: int | None,
        but_row: int | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        depth, wider = vector_index.DEEPER * search.k, 1
        while True:
            similarity, found, complete = self._deep(query, depth, wider, allowed, rows)
            kept = self._kept(similarity, found, search, but_picture, but_row)
            too_far = len(found) and similarity[-1] < search.least_similarity
            all_met = complete and (len(found) < depth or depth >= len(self))
            if kept.sum() >= search.k or all_met or too_far:
                return similarity[kept][: search.k], found[kept][: search.k]
            depth, wider = min(4 * depth, len(self)), 4 * wider

    def count(self, chosen: Filter) -> int:
        """Rows that pass a filter."""
        allowed, rows = self._allowed(chosen)
        if rows is not None:
            return len(rows)
        return len(self) if allowed is None else int(np.bitwise_count(allowed).sum())

    def _deep(
        self, query: np.ndarray, depth: int, wider: int, allowed: np.ndarray | None, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """The best `depth` rows that were met, and whether all rows that pass were compared."""
        complete = True
        if rows is None:
            # Where few rows pass, those that are near lie in more lists.
            probes = round(self.infos["probes"] * wider / self._share(allowed) ** 0.5)
            complete = probes >= (self._index.nlist if self.infos["probes"] else 0)
            rows = vector_index.candidates(self._index, query[None], depth, probes, allowed)[0]
        return *vector_index.ordered(self.vectors, query, rows, depth), complete

    def _share(self, allowed: np.ndarray | None) -> float:
        return 1.0 if allowed is None else max(int(np.bitwise_count(allowed).sum()), 1) / len(self)

    def _filtered(self, chosen: Filter) -> Allowed:
        """Bits of the rows that pass, None = all; their numbers, where they are few."""
        if chosen.everything:
            return None, None
        columns = (self.column(name) for name in ("area", "tags", "tags_known"))
        return allowing(passing(chosen, self.classes, self.label, *columns))

    def _kept(
        self,
        similarity: np.ndarray,
        rows: np.ndarray,
        search: Search,
        but_picture: int | None,
        but_row: int | None,
    ) -> np.ndarray:
        kept = similarity >= search.least_similarity
        if but_row is not None:
            kept &= rows != but_row
        if but_picture is not None:
            kept &= self.picture[rows] != but_picture
        if search.per_picture is not None:
            seen: dict[int, int] = {}
            for place in np.flatnonzero(kept):
                number = int(self.picture[rows[place]])
                seen[number] = seen.get(number, 0) + 1
                kept[place] = seen[number] <= search.per_picture
        return kept

    def _key(self, row: int) -> str:
        columns, at = self._place(row)
        return columns["key"][at].as_py()

    def _place(self, row: int) -> tuple[dict[str, np.ndarray | pa.Array], int]:
        """The columns of a row's batch, and where it is in them."""
        batch = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return self._columns[batch], row - int(self._firsts[batch])


def open_files(folder: str | Path, digests: bool | None = None) -> SegmentIndex:
    """Open an index. digests: compare its files' content with what was built, None = where that is quick.

    Raises RunError for a folder without an index, and for files that disagree, naming the first.
    """
    folder = Path(folder)
    infos = layout.read_infos(folder)
    try:
        layout.require_whole(folder, infos, digests)
        index = SegmentIndex(folder, infos)
        index.require_columns()
        rows = [
            pq.read_metadata(path).num_rows for path in sorted((folder / layout.METADATA).glob("*.parquet"))
        ]
    except (OSError, ValueError, TypeError, AttributeError, pa.ArrowInvalid, KeyError) as problem:
        raise RunError(f"{folder}: damaged index", repr(problem), "build it again") from problem
    counts = {
        layout.INFOS: infos["nb vectors"],
        layout.INDEX: index._index.ntotal,
        layout.VECTORS: len(index.vectors),
        layout.ROWS: len(index),
        layout.METADATA: sum(rows),
    }
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise RunError(f"{folder}: its files have different numbers of rows", said, "build it again")
    return index


def _segment(row: int, values: dict[str, Any], packs: Sequence[Pack], classes: Sequence[str]) -> Segment:
    tags = tuple(classes[label] for label in tags_of(values["tags"])) if values["tags_known"] else None
    return Segment(
        row=row,
        pack=packs[values["pack"]].name,
        key=values["key"],
        number=values["segment"],
        box=(values["x0"], values["y0"], values["x1"], values["y1"]),
        area=values["area"],
        size=(values["height"], values["width"]),
        label=classes[values["label"]] if values["label"] >= 0 else None,
        source=SOURCES[values["source"]],
        confidence=values["confidence"],
        predicted=classes[values["predicted"]] if values["predicted"] >= 0 else None,
        tags=tags,
        place=(values["pack"], values["shard"], values["place"]),
        grid=(values["grid_height"], values["grid_width"]),
        outline=values["outline"],
    )


def allowing(mask: np.ndarray) -> Allowed:
    """Rows that may answer, [N] bool, as searches take them."""
    few = int(mask.sum()) <= FEW
    return (None, np.flatnonzero(mask)) if few else (np.packbits(mask, bitorder="little"), None)


def _mapped(column: pa.Array) -> np.ndarray | pa.Array:
    """A column of numbers as it lies, [n], and one of fixed bytes, [n, bytes] uint8; texts remain Arrow's."""
    kind, content = column.type, column.buffers()[1]
    if pa.types.is_fixed_size_binary(kind):
        width = kind.byte_width
        every = np.frombuffer(content, np.uint8, len(column) * width, column.offset * width)
        return every.reshape(-1, width)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return column
    return np.frombuffer(content, kind.to_pandas_dtype(), len(column), column.offset * kind.byte_width)


def _plain(value: Any) -> Any:
    """A cell of a column as a number, text or bytes of Python."""
    if isinstance(value, pa.Scalar):
        return value.as_py()
    return value.tobytes() if isinstance(value, np.ndarray) else value.item()
