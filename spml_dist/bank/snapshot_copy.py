"""What a bank's snapshot will hold, in host memory: the bank goes on while it is written.

A partition that has not changed since an earlier snapshot is no part of the copy: the new snapshot's file is
another name of the earlier one's.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from spml_dist import comm
from spml_dist.bank.rows import digest, written
from spml_dist.bank.search.index_cache import IndexCache
from spml_dist.bank.snapshot_folder import INDEX, PARTITION, checksum, unwritable
from spml_dist.bank.snapshot_manifest import (
    SnapshotFile,
    SnapshotManifest,
    read_manifest,
    sum_of,
    write_manifest,
)
from spml_dist.errors import RunError
from spml_dist.records import BankRows
from spml_dist.tensor_records import take

if TYPE_CHECKING:
    from spml_dist.bank.sharded import ShardedBank


@dataclass(frozen=True)
class PartitionFile:
    """A partition's rows in a file."""

    file: SnapshotFile
    images: int
    newest: int
    """step of its newest row"""

    @classmethod
    def of(cls, rows: BankRows, size: int) -> PartitionFile:
        """rows: at least one; size: of the file in bytes."""
        images, newest = len(rows.image.unique()), int(rows.step.max())
        return cls(SnapshotFile(size, written(digest(rows)), len(rows)), images, newest)


@dataclass(frozen=True)
class WrittenPart:
    """What one rank wrote."""

    files: dict[str, SnapshotFile]
    indexes: dict[str, SnapshotFile]
    images: int
    newest: int
    """step of its newest row, -1 = none"""


class SnapshotCopy:
    """A `BankCopy` of this rank's partitions."""

    def __init__(self, bank: ShardedBank, previous: Path | None = None):
        """bank: settled; previous: an earlier snapshot of it, on any number of ranks."""
        store = bank.store
        self._bank, self._previous = bank, previous
        self._unchanged = _unchanged(bank, previous)
        changed = [number for number in store.owned if number not in self._unchanged]
        slots = [store.live(number) for number in changed]
        self._counts = dict(zip(changed, map(len, slots), strict=True))
        # One transfer of all of them, which is what the step waits for.
        self._rows = _in_host_memory(take(store.rows, torch.cat([*slots, store.live()[:0]])))
        self._index = _index(bank, bank.cache) if bank.cache else None
        store.changed.clear()
        bank.partition_files = dict(self._unchanged)  # the others have none before they are written

    def write(self, folder: Path) -> dict[str, Any]:
        """`BankCopy.write`."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return asdict(self._written(folder))
        except (OSError, SafetensorError) as problem:
            raise unwritable(folder, problem) from problem

    def finish(self, folder: Path, parts: list[dict[str, Any]]) -> None:
        """`BankCopy.finish`."""
        whole = [TypeAdapter(WrittenPart).validate_python(part) for part in parts]
        try:
            write_manifest(folder, _manifest(self._bank, whole))
        except OSError as problem:
            raise unwritable(folder, problem) from problem

    def _written(self, folder: Path) -> WrittenPart:
        files, start = {}, 0
        for number, count in self._counts.items():
            rows, start = take(self._rows, slice(start, start + count)), start + count
            if count:
                path = folder / PARTITION.format(number)
                save_file({f.name: getattr(rows, f.name) for f in fields(BankRows)}, path)
                files[number] = PartitionFile.of(rows, path.stat().st_size)
        for number in self._unchanged:
            assert self._previous
            _named_again(self._previous / PARTITION.format(number), folder / PARTITION.format(number))
        self._bank.partition_files = files = files | self._unchanged
        indexes = {}
        if self._index:
            name = INDEX.format(comm.rank(), comm.world())
            indexes[name] = _write_index(*self._index, folder / name)
        return WrittenPart(
            {PARTITION.format(number): each.file for number, each in sorted(files.items())},
            indexes,
            sum(each.images for each in files.values()),
            max((each.newest for each in files.values()), default=-1),
        )


def _in_host_memory(rows: BankRows) -> BankRows:
    return BankRows(**{f.name: getattr(rows, f.name).cpu().contiguous() for f in fields(BankRows)})


def _unchanged(bank: ShardedBank, previous: Path | None) -> dict[int, PartitionFile]:
    """Partitions whose rows are those of a file in the earlier snapshot."""
    known = {n: each for n, each in bank.partition_files.items() if n not in bank.store.changed}
    if not (known and previous):
        return {}
    try:
        files = read_manifest(previous).files
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(previous)}
    except (RunError, OSError):  # somebody has removed or damaged it: everything is written anew
        return {}
    names = {number: PARTITION.format(number) for number in known}
    return {
        number: each
        for number, each in known.items()
        if files.get(names[number]) == each.file and sizes.get(names[number]) == each.file.bytes
    }


def _named_again(file: Path, name: Path) -> None:
    """Another name for a file, which stays when the first one is removed; a copy where that cannot be."""
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)


def _index(bank: ShardedBank, cache: IndexCache) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a rank's inverted file."""
    known = torch.from_numpy(cache.current(bank.store.used))[bank.store.live().cpu()]
    tensors = {"centroids": torch.from_numpy(cache.inverted.centroids).clone(), "known": known}
    # One entry: safetensors writes several in any order, and the same bank is to be the same bytes.
    return tensors, {"cache": json.dumps(cache.state(), sort_keys=True)}


def _write_index(tensors: dict[str, Tensor], state: dict[str, str], path: Path) -> SnapshotFile:
    save_file(tensors, path, state)
    return SnapshotFile(path.stat().st_size, checksum(path), len(tensors["known"]))


def _manifest(bank: ShardedBank, parts: list[WrittenPart]) -> SnapshotManifest:
    files = {name: file for part in parts for name, file in part.files.items()}
    settings, newest = bank.settings, max(part.newest for part in parts)
    return SnapshotManifest(
        shards=bank.partitions,
        capacity=settings.capacity,
        dim=bank.dim,
        classes=bank.names,
        storage=settings.storage,
        step=None if newest < 0 else newest,
        world=len(parts),
        rows=sum(file.rows for file in files.values()),
        images=sum(part.images for part in parts),
        digest=sum_of(file.digest for file in files.values()),
        files=files,
        indexes={name: file for part in parts for name, file in part.indexes.items()},
    )
