"""The segments of one shard, written by whichever worker takes it; what is finished survives a kill."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from spml_dist.bank.rows import ANNOTATED
from spml_dist.data.format.keys import image_id_of
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.stream.reader import CorruptSample, Reader
from spml_dist.files.write import replacing
from spml_dist.model import export
from spml_dist.model.segmenter import Segmenter
from spml_dist.records import Sample
from spml_dist.retrieval import outlines
from spml_dist.retrieval.image_segments import Cut, ImageSegments, annotated, cut_image
from spml_dist.retrieval.rows import UNKNOWN, schema, tag_bits


@dataclass(frozen=True)
class Part:
    """A shard to index."""

    pack: int
    """number of its pack in the index"""
    shard: int
    """number in its pack's manifest"""
    name: str
    """of its files: a digest of all that they depend on, so that they can be taken over"""


@dataclass(frozen=True)
class Finished:
    """What became of a part."""

    part: Part
    rows: int
    unreadable: tuple[str, ...]
    """ids of images that do not decode"""


def part_name(digest: str, cut: Cut, shard_sha256: str) -> str:
    """Of the shard's content, the model's and how images are cut."""
    content = json.dumps([1, digest, cut.longer_side, cut.grid, cut.iterations, shard_sha256])
    return hashlib.blake2b(content.encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class PartWriter:
    """Indexes part after part; it travels to the processes that do."""

    export_folder: Path
    device: str
    cut: Cut
    folders: tuple[str, ...]
    """of the packs, by their numbers"""
    unfinished: Path

    def __call__(self, part: Part) -> Finished:
        """Write PART.npy and PART.arrow unless they are there. Raises DataError for a damaged shard."""
        path = self.unfinished / f"{part.name}.arrow"
        if not path.exists():
            vectors, table = self._read(part)
            with replacing(path.with_suffix(".npy")) as aside, aside.open("wb") as file:
                np.save(file, vectors)
            # Last: with it the part is whole.
            with replacing(path) as aside, pa.ipc.new_file(str(aside), table.schema) as writer:
                writer.write_table(table)
        return finished(part, path)

    def _read(self, part: Part) -> tuple[np.ndarray, pa.Table]:
        model, dim, classes = _model(self.export_folder, self.device)
        folder = self.folders[part.pack]
        reader = Reader(folder, read_manifest(folder), masks=False)
        vectors, columns, unreadable = [np.zeros((0, dim), np.float16)], [], []
        # A sum's last bits depend on the number of threads, and workers have one each.
        with _one_thread():
            for place in range(reader.manifest.shards[part.shard].samples):
                try:
                    sample = reader.read(part.shard, place)
                except CorruptSample as error:
                    unreadable.append(image_id_of(error.key))
                    continue
                segments = cut_image(model, sample.image, self.cut)
                vectors.append(segments.vector.astype(np.float16))
                columns.append(_columns(sample, segments, classes) | {"shard": part.shard, "place": place})
        table = _table(columns, schema(classes)).replace_schema_metadata(
            {"unreadable": json.dumps(unreadable)}
        )
        return np.concatenate(vectors), table


def finished(part: Part, path: Path) -> Finished:
    """What a written part holds."""
    table = read_part(path)
    return Finished(part, len(table), tuple(json.loads(table.schema.metadata[b"unreadable"])))


def read_part(path: Path) -> pa.Table:
    """The rows of a written part, mapped into memory; `pack` is 0."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _columns(sample: Sample, segments: ImageSegments, classes: int) -> dict[str, Any]:
    count = len(segments.vector)
    label, share = annotated(segments, sample.semantic, classes)
    (height, width), (rows, columns) = segments.size, segments.numbers.shape
    return {
        "key": sample.key,
        "segment": np.arange(count),
        **{name: segments.box[:, at] for at, name in enumerate(("x0", "y0", "x1", "y1"))},
        **{"area": segments.area, "height": height, "width": width},
        **{"grid_height": rows, "grid_width": columns},
        "outline": outlines.encode(segments.numbers, count),
        "label": np.where(label < 0, UNKNOWN, label),
        "source": np.where(label < 0, 0, ANNOTATED),
        "confidence": np.where(label < 0, 0, share),
        "predicted": segments.predicted,
        "tags": tag_bits(sample.tags or (), classes),
        "tags_known": int(sample.tags is not None),
    }


def _table(images: list[dict[str, Any]], columns: pa.Schema) -> pa.Table:
    """One table of all images; what an image has once is repeated for each of its segments."""
    tables = []
    for image in images:
        count = len(image["segment"])
        values = {"pack": 0, **image}
        arrays = [
            pa.array([value] * count if np.isscalar(value) or isinstance(value, bytes) else value, kind)
            for value, kind in ((values[name], columns.field(name).type) for name in columns.names)
        ]
        tables.append(pa.table(arrays, schema=columns))
    return pa.concat_tables([columns.empty_table(), *tables]).combine_chunks()


@lru_cache(maxsize=1)
def _model(folder: Path, device: str) -> tuple[Segmenter, int, int]:
    model, info = export.load(folder)
    return model.to(device), info["model"]["embedding_dim"], len(info["classes"])


class _one_thread:
    """While the block runs PyTorch computes in one thread, on a CPU."""

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._before)
