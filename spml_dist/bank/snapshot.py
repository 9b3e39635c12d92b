"""The bank in a folder: saved by all ranks, restored by any number of them, read without any.

FOLDER/
  manifest.json                     what the bank is, and the digest of every other file
  shard_00017.safetensors           rows of a partition, oldest image first; no file where there are none
  index_00001_of_00002.safetensors  a rank's inverted file: centroids, and which rows have entries
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from spml_dist import comm
from spml_dist.bank.partitions import partition_of
from spml_dist.bank.rows import digest, empty, written
from spml_dist.bank.search.index_cache import IndexCache
from spml_dist.bank.snapshot_copy import PartitionFile, SnapshotCopy
from spml_dist.bank.snapshot_folder import (
    INDEX,
    MANIFEST,
    PARTITION,
    RECENT_ROWS,
    another_kind,
    checksum,
    damaged,
)
from spml_dist.bank.snapshot_manifest import SnapshotFile, SnapshotManifest, read_manifest, sum_of
from spml_dist.errors import RunError
from spml_dist.records import BankRows
from spml_dist.tensor_records import concatenate, take

if TYPE_CHECKING:
    from spml_dist.bank.sharded import ShardedBank


@dataclass(frozen=True)
class _RestoredPart:
    """What one rank read of a snapshot."""

    digest: str
    rows: int
    """those that are its own"""
    stored: int
    """those that its store had room for"""
    fullest: int
    """most rows that belong into one partition"""


def save(bank: ShardedBank, folder: Path) -> None:
    """Write a bank into a new folder that all ranks see; a collective.

    What was published is in it. Raises RunError on every rank if any of them cannot write; the folder is no
    snapshot then.
    """
    bank.settle()
    copy = SnapshotCopy(bank)
    part, trouble = None, None
    try:
        part = copy.write(folder)
    except RunError as error:
        trouble = error
    comm.agree(trouble)
    parts = comm.from_every_rank(part)
    if comm.rank() == 0:
        try:
            copy.finish(folder, parts)
        except RunError as error:
            trouble = error
    comm.agree(trouble)


def restore(bank: ShardedBank, folder: Path) -> None:
    """Fill an empty bank with what `save` wrote, on any number of ranks; a collective.

    The inverted file comes back too, where ranks and partitions are as many as they were; elsewhere it is
    made anew when it is needed. In main memory it answers as it would have, to the bit; on a GPU it comes
    without entries that were out of date, which leaves room for others. Raises RunError on every rank for a
    missing or damaged file, which is named, for a bank of other settings, and for rows that find no room.
    """
    comm.agree(another_kind(folder, RECENT_ROWS, bank.settings.candidates))
    restored, trouble = None, None
    try:
        manifest = read_manifest(folder)
        _require_alike(bank, manifest, folder)
        restored = _fill(bank, manifest, folder)
        name = INDEX.format(comm.rank(), comm.world())
        alike = (manifest.world, manifest.shards) == (comm.world(), bank.partitions)
        whole = restored.stored == restored.rows  # else `_missing` names what does not fit
        if alike and whole and name in manifest.indexes and bank.indexes:
            bank.cache = _index(bank, folder / name, manifest.indexes[name])
    except RunError as error:
        trouble = error
    comm.agree(trouble)
    comm.agree(_missing(bank, manifest, comm.from_every_rank(restored), folder))


def read_shards(folder: Path) -> Iterator[BankRows]:
    """The rows of a snapshot, a partition at a time, oldest image first; in any process.

    Raises RunError that names the file which is missing or damaged.
    """
    manifest = read_manifest(folder)
    for name, file in sorted(manifest.files.items()):
        yield _read(folder / name, file, manifest)


def require_whole(folder: Path) -> None:
    """Look, without reading them, whether the files of a bank of either kind are whole; in any process.

    Raises RunError that names the file which is missing or cut.
    """
    if (folder / RECENT_ROWS).exists() or not (folder / MANIFEST).exists():
        try:
            with safe_open(folder / RECENT_ROWS, framework="pt"):  # compares the header with the size
                return
        except (OSError, SafetensorError) as problem:
            raise damaged(folder / RECENT_ROWS, problem) from problem
    manifest = read_manifest(folder)
    for name, file in (manifest.files | manifest.indexes).items():
        try:
            size = (folder / name).stat().st_size
        except OSError as problem:
            raise damaged(folder / name, problem.strerror) from problem
        if size != file.bytes:
            raise damaged(folder / name, f"{size} of its {file.bytes} bytes are there")


def verify_indexes(folder: Path) -> None:
    """Compare the inverted files of a snapshot with what its manifest says of them; in any process.

    Raises RunError that names the file which is missing or damaged.
    """
    for name, file in read_manifest(folder).indexes.items():
        _verify(folder / name, file)


def _fill(bank: ShardedBank, manifest: SnapshotManifest, folder: Path) -> _RestoredPart:
    """Put this rank's rows into its store, those of the files whose images may meet in one partition
    together: images that come oldest first are put without sorting."""
    store, partitions, digests, rows, fullest = bank.store, bank.partitions, [], 0, 0
    apart, whole = gcd(manifest.shards, partitions), dict[int, PartitionFile]()
    for residue in sorted({partition % apart for partition in store.owned}):
        parts = [empty(0, bank.dim, bank.classes, bank.settings.storage)]
        for name in map(PARTITION.format, range(residue, manifest.shards, apart)):
            if name in manifest.files:
                part = _read(folder / name, manifest.files[name], manifest)
                partition = partition_of(part.image, partitions)
                own = (partition >= store.owned.start) & (partition < store.owned.stop)
                parts.append(part if own.all() else take(part, own))
                digests.append(manifest.files[name].digest if own.all() else written(digest(parts[-1])))
                if manifest.shards == partitions and len(part):
                    images, newest = len(part.image.unique()), int(part.step.max())
                    whole[residue] = PartitionFile(manifest.files[name], images, newest)
        together = concatenate(parts)
        store.put(together)
        rows += len(together)
        fullest = max([fullest, *torch.bincount(partition_of(together.image, partitions)).tolist()])
    if manifest.shards == partitions:
        bank.partition_files = whole
        store.changed.clear()
    return _RestoredPart(sum_of(digests), rows, len(store), fullest)


def _read(path: Path, file: SnapshotFile, manifest: SnapshotManifest) -> BankRows:
    try:
        values = load_file(path)
    except (OSError, SafetensorError) as problem:
        raise damaged(path, problem) from problem
    like = empty(0, manifest.dim, len(manifest.classes), manifest.storage)
    for field in fields(BankRows):
        value, expected = values.get(field.name), getattr(like, field.name)
        if value is None or (value.dtype, value.shape) != (expected.dtype, (file.rows, *expected.shape[1:])):
            raise damaged(path, f"its {field.name} is not that of {file.rows} rows")
    rows = BankRows(**values)
    if written(digest(rows)) != file.digest:
        raise damaged(path, "its rows are not those that were saved")
    return rows


def _index(bank: ShardedBank, path: Path, file: SnapshotFile) -> IndexCache:
    """The inverted file as it was: rows that had no entry have none now, and are searched exactly."""
    _verify(path, file)
    try:
        with safe_open(path, framework="pt") as opened:
            state = json.loads(opened.metadata()["cache"])
            middles, known = (opened.get_tensor(name).numpy() for name in ("centroids", "known"))
    except (OSError, SafetensorError) as problem:
        raise damaged(path, problem) from problem
    unknown = np.ones(bank.store.used, bool)
    unknown[bank.store.live().cpu().numpy()] = ~known
    cache = IndexCache(bank.store, middles)
    cache.update(but=unknown)
    cache.resume(state)
    return cache


def _require_alike(bank: ShardedBank, manifest: SnapshotManifest, folder: Path) -> None:
    for key, ours, theirs in (
        ("bank.storage", bank.settings.storage, manifest.storage),
        ("model.embedding_dim", bank.dim, manifest.dim),
    ):
        if ours != theirs:
            remedy = f"make it {theirs}, or start a new run"
            raise RunError(f"{key} is not that of the bank in {folder}, {theirs}", ours, remedy)
    if bank.names != manifest.classes:
        saved, configured = (", ".join(names) for names in (manifest.classes, bank.names))
        remedy = "train on data with the same classes in the same order, or start a new run"
        raise RunError(
            f"the classes of data.train are not those of the bank in {folder}, {saved}", configured, remedy
        )


def _missing(
    bank: ShardedBank, manifest: SnapshotManifest, restored: list[_RestoredPart], folder: Path
) -> RunError | None:
    """What is wrong with the whole, which no rank sees by itself."""
    settings = bank.settings
    if sum_of(each.digest for each in restored) != manifest.digest:
        remedy = "put the run folder on storage that all of them share"
        return RunError(f"{folder}: the ranks do not see the same files there", None, remedy)
    if sum(each.stored for each in restored) < sum(each.rows for each in restored):
        least = max(each.fullest for each in restored) * bank.partitions
        before = f"{manifest.capacity} with bank.partitions {manifest.shards}"
        remedy = f"raise it to {least}, or go back to {before}"
        return RunError(
            f"bank.capacity has no room for the {manifest.rows} rows of {folder}", settings.capacity, remedy
        )
    return None


def _verify(path: Path, file: SnapshotFile) -> None:
    try:
        same = checksum(path) == file.digest
    except OSError as problem:
        raise damaged(path, problem) from problem
    if not same:
        raise damaged(path, "its bytes are not those that were saved")
