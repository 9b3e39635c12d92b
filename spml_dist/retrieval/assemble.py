"""From parts to the files of an index, row by row in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spml_dist.files.write import write_json
from spml_dist.retrieval import vector_index
from spml_dist.retrieval.layout import INDEX, INFOS, METADATA, ROWS, VECTORS, VERSION, files_of
from spml_dist.retrieval.rows import Pack, readable

Source = tuple[np.ndarray, pa.Table]
"""some rows: [n, C] vectors and what is known of them"""

BATCH = 1 << 14
"""rows of a batch of rows.arrow and of a row group"""
FILE_ROWS = 1 << 20
"""rows of a Parquet file"""


def assemble(
    whole: Path,
    sources: Callable[[], Iterable[Source]],
    rows: int,
    dim: int,
    packs: Sequence[Pack],
    classes: Sequence[str],
    facts: dict[str, Any],
    kind: str | None = None,
) -> dict[str, Any]:
    """Write all files of an index into the folder `whole`, its infos last, and return these.

    sources: gives the rows in their order, each time that it is called; facts: what else the infos say.
    """
    (whole / METADATA).mkdir(parents=True)
    _write_vectors(whole / VECTORS, (vectors for vectors, _ in sources()), rows, dim)
    vectors = np.load(whole / VECTORS, mmap_mode="r")
    built = vector_index.build(vectors, whole / INDEX, kind)
    _write_rows(whole, (table for _, table in sources()), vectors, packs, classes, facts["model"])
    files = files_of(whole)
    infos = {
        "version": VERSION,
        "index_path": INDEX,
        "index_key": built.key,
        "index_param": f"nprobe={built.probes}" if built.probes else "",
        "nb vectors": rows,
        "vectors dimension": dim,
        "size in bytes": files[INDEX]["bytes"],
        "metric_type": "ip",
        "kind": built.kind,
        "probes": built.probes,
        f"recall@{vector_index.RECALL_AT}": built.recall,
        "packs": [asdict(pack) for pack in packs],
        "classes": list(classes),
        **facts,
        "files": files,
    }
    write_json(whole / INFOS, infos, sort_keys=False)
    return infos


def batches(sources: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in batches of BATCH, whatever pieces they come in."""
    kept: list[pa.Table] = []
    count = 0
    for table in sources:
        kept.append(table)
        count += len(table)
        while count >= BATCH:
            joined = pa.concat_tables(kept)
            yield joined.slice(0, BATCH).combine_chunks()
            kept, count = [joined.slice(BATCH)], count - BATCH
    if count:
        yield pa.concat_tables(kept).combine_chunks()


def _write_vectors(path: Path, parts: Iterable[np.ndarray], rows: int, dim: int) -> None:
    header = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, "<f2").tobytes())


def _write_rows(
    whole: Path,
    tables: Iterable[pa.Table],
    vectors: np.ndarray,
    packs: Sequence[Pack],
    classes: Sequence[str],
    digest: str,
) -> None:
    axes, first = _axes(vectors), 0
    arrow: Any = None
    parquet: Any = None
    try:
        for table in batches(tables):
            table = table.replace_schema_metadata(None)
            if arrow is None:
                arrow = pa.ipc.new_file(str(whole / ROWS), table.schema)
            places = vectors[first : first + len(table)].astype(np.float32) @ axes
            people = readable(table, first, packs, classes, places, digest)
            if first % FILE_ROWS == 0:
                if parquet is not None:
                    parquet.close()
                name = f"metadata_{first // FILE_ROWS:05d}.parquet"
                parquet = pq.ParquetWriter(whole / METADATA / name, people.schema, compression="zstd")
            arrow.write_table(table)
            parquet.write_table(people)
            first += len(table)
    finally:
        for writer in (arrow, parquet):
            if writer is not None:
                writer.close()


def _axes(vectors: np.ndarray) -> np.ndarray:
    """[C, 2] float32: the directions in which the rows differ most, for a map of the collection."""
    some = vectors[np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), 20_000)).astype(int))]
    some = some.astype(np.float64)
    _, directions = np.linalg.eigh(np.cov(some.T) if len(some) > 1 else np.eye(vectors.shape[1]))
    axes = np.atleast_2d(directions)[:, ::-1][:, :2]
    axes = axes * np.sign(
        axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
    )  # eigenvectors have no sign
    return np.pad(axes, ((0, 0), (0, 2 - axes.shape[1]))).astype(np.float32)
