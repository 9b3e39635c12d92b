"""An index of what a checkpoint's bank remembers: quick, because no image is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from spml_dist.bank.inspect import bank_folder
from spml_dist.bank.rows import from_bitset
from spml_dist.bank.snapshot import read_shards
from spml_dist.bank.snapshot_manifest import read_manifest as read_bank_manifest
from spml_dist.data.format.manifest import Manifest
from spml_dist.data.stream.reader import Reader
from spml_dist.errors import RunError
from spml_dist.hashing import image_check, image_hash
from spml_dist.records import BankRows
from spml_dist.retrieval import layout
from spml_dist.retrieval.assemble import Source
from spml_dist.retrieval.build import Changes, Rows, load_run, read_packs, replace_rows
from spml_dist.retrieval.rows import UNKNOWN, Pack, schema
from spml_dist.run_folder import RunFolder

LACKS = {
    "outlines": "the bank keeps boxes: neighbours are shown by theirs",
    "whole pictures": "its segments are of training crops, each from the step that met its image last",
    "predicted classes": "only annotated and propagated ones are kept",
}
"""what an index from a bank has not, for people and for index_infos.json"""

Places = dict[tuple[int, int], tuple[int, int, int, str]]
"""hashes of an image's key → pack, shard, place in it, key"""


def index_bank(
    run: str | Path, packs: Sequence[str] = (), out: str | Path = "index", *, kind: str | None = None
) -> Changes:
    """Index the bank of a run's newest checkpoint into the folder `out`.

    packs: where its images lie, () = the run's data.train; they are told by the hashes of their keys. Raises
    RunError for a run without a bank of the whole data set and for rows of images that the packs do not hold,
    and as `build_index`.
    """
    folder, out = RunFolder(Path(run)), Path(out)
    config, facts = load_run(folder)
    packed = read_packs(packs or [config.data.train], facts["classes"], facts["background"])
    bank = bank_folder(folder.path)
    step = read_bank_manifest(bank).step
    places = _places(packed)
    with layout.building(out) as unfinished:
        sources = partial(_sources, bank, places, len(facts["classes"]))
        rows = Rows([pack for pack, _ in packed], sources)
        more: dict[str, Any] = {"lacks": LACKS, "step": step, "unreadable": []}
        infos, _, _ = replace_rows(out, unfinished, None, rows, facts | more, kind)
        return Changes(infos, rows.pictures(), 0, 0, ())


def _places(packed: Sequence[tuple[Pack, Manifest]]) -> Places:
    places: Places = {}
    for number, (pack, manifest) in enumerate(packed):
        reader = Reader(pack.folder, manifest)
        for shard in range(len(manifest.shards)):
            keys = reader.keys(shard)
            hashes = zip(image_hash(keys).tolist(), image_check(keys).tolist(), strict=True)
            places |= {each: (number, shard, at, keys[at]) for at, each in enumerate(hashes)}
    return places


def _sources(bank: Path, places: Places, classes: int) -> Iterator[Source]:
    for rows in read_shards(bank):
        yield rows.vector.float().numpy().astype(np.float16), _table(rows, places, classes, bank)


def _table(rows: BankRows, places: Places, classes: int, bank: Path) -> pa.Table:
    hashes = list(zip(rows.image.tolist(), rows.check.tolist(), strict=True))
    unknown = len({each for each in hashes if each not in places})
    if unknown:
        remedy = "give the packs that it was trained on"
        raise RunError(f"{bank}: images that the packs do not hold", unknown, remedy)
    found = [places[each] for each in hashes]
    # Sides of the image are not known: of a square of BOX pixels.
    box = (rows.box.float().numpy()[:, [1, 0, 3, 2]] * BOX).round().astype(np.int32)
    tags = np.packbits(from_bitset(rows.tags, classes).numpy(), axis=1, bitorder="little")
    none = np.zeros(len(rows), np.int32)
    values = {
        **dict(zip(("pack", "shard", "place", "key"), zip(*found, strict=True), strict=True)),
        "segment": rows.segment.numpy(),
        **{name: box[:, at] for at, name in enumerate(("x0", "y0", "x1", "y1"))},
        "area": rows.area.numpy(),
        **dict.fromkeys(("height", "width"), none + BOX),
        **dict.fromkeys(("grid_height", "grid_width"), none),
        "outline": [b""] * len(rows),
        "label": rows.label.numpy(),
        "source": rows.source.numpy(),
        "confidence": rows.confidence.numpy(),
        "predicted": none + UNKNOWN,
        "tags": [bytes(each) for each in tags],
        "tags_known": rows.tags_known.numpy().astype(np.uint8),
    }
    columns = schema(classes)
    return pa.table(
        [pa.array(values[name], columns.field(name).type) for name in columns.names], schema=columns
    )


BOX = 1000
"""sides of an image whose size in pixels a bank does not know: boxes are in thousandths"""
