"""What an index knows of each segment beside its vector: one Arrow table, coded, and as people read it.

`rows.arrow` holds numbers for names (pack, class), is mapped into memory and never read as a whole;
`metadata/*.parquet` holds the same rows in the same order with the names, for other tools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from spml_dist.bank.rows import ANNOTATED, PROPAGATED

SOURCES = ("none", "annotated", "propagated")
"""where a class comes from, by its number in the bank"""
assert SOURCES.index("annotated") == ANNOTATED and SOURCES.index("propagated") == PROPAGATED

UNKNOWN = -1
"""of a class, and of a place in a pack that the index does not know"""


def schema(classes: int) -> pa.Schema:
    """Columns of `rows.arrow`. classes: K."""
    return pa.schema(
        {
            "pack": pa.int16(),
            "shard": pa.int32(),
            "place": pa.int32(),  # of the sample in its shard
            "key": pa.string(),
            "segment": pa.int32(),
            "x0": pa.int32(),  # pixels, x1 and y1 exclusive
            "y0": pa.int32(),
            "x1": pa.int32(),
            "y1": pa.int32(),
            "area": pa.float32(),  # share of the image
            "height": pa.int32(),
            "width": pa.int32(),
            "grid_height": pa.int16(),
            "grid_width": pa.int16(),
            "outline": pa.binary(),
            "label": pa.int16(),
            "source": pa.uint8(),
            "confidence": pa.float32(),
            "predicted": pa.int16(),
            "tags": pa.binary(-(-classes // 8)),  # a bit a class, the lowest first
            "tags_known": pa.uint8(),
        }
    )


def tag_bits(tags: Sequence[int], classes: int) -> bytes:
    """A set of classes as the column `tags` holds it."""
    bits = np.zeros(classes, bool)
    bits[list(tags)] = True
    return np.packbits(bits, bitorder="little").tobytes()


def tags_of(bits: bytes) -> tuple[int, ...]:
    """The inverse of `tag_bits`."""
    return tuple(np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")).tolist())


@dataclass(frozen=True)
class Pack:
    """A pack that an index shows, as index_infos.json describes it."""

    name: str
    """with the segment's key and number it is the segment's id, NAME/KEY/NUMBER"""
    folder: str
    """path or address"""
    shards: tuple[str, ...]
    """relative to the folder, as its manifest names them"""
    digests: tuple[str, ...]
    """sha256 of each: a shard that was packed anew since holds other images"""


def segment_id(pack: str, key: str, segment: int) -> str:
    """How people name a segment. Neither names of packs nor keys hold a slash."""
    return f"{pack}/{key}/{segment}"


def readable(
    table: pa.Table,
    first: int,
    packs: Sequence[Pack],
    classes: Sequence[str],
    places: np.ndarray,
    digest: str,
) -> pa.Table:
    """Rows as the Parquet holds them, with names for numbers.

    first: number of the first row, its id; places: [n, 2] where a map of the collection shows each; digest:
    of the model.
    """
    pack, shard = (table[name].to_numpy() for name in ("pack", "shard"))
    names = np.array([each.name for each in packs], object)[pack]
    urls = [packs[p].shards[s] if s >= 0 else None for p, s in zip(pack, shard, strict=True)]
    keys, numbers = table["key"].to_pylist(), table["segment"].to_pylist()
    known = table["tags_known"].to_pylist()
    tags = [
        [classes[label] for label in tags_of(bits)] if is_known else None
        for bits, is_known in zip(table["tags"].to_pylist(), known, strict=True)
    ]
    copied = (*("x0", "y0", "x1", "y1", "area", "height", "width"), *("grid_height", "grid_width", "outline"))
    return pa.table(
        {
            "id": pa.array(np.arange(first, first + len(table))),
            "segment_id": [segment_id(*each) for each in zip(names, keys, numbers, strict=True)],
            "pack": pa.array(names, pa.string()),
            "shard": pa.array(urls, pa.string()),
            "key": table["key"],
            "segment": table["segment"],
            **{name: table[name] for name in copied},
            "class": _named(table["label"], classes),
            "source": _named(table["source"], SOURCES),
            "confidence": table["confidence"],
            "predicted": _named(table["predicted"], classes),
            "tags": pa.array(tags, pa.list_(pa.string())),
            "model": pa.array([digest] * len(table)).dictionary_encode(),
            "projection_x": pa.array(places[:, 0], pa.float32()),
            "projection_y": pa.array(places[:, 1], pa.float32()),
        }
    )


def _named(codes: pa.ChunkedArray, names: Sequence[str]) -> pa.Array:
    numbers = codes.to_numpy().astype(np.int64)
    return pa.array(np.array([*names, None], object)[numbers], pa.string())  # UNKNOWN is the last
