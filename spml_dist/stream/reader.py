"""Random access to the samples of packed shards.

A shard is indexed on first use: the members of a sample are neighbours in its tar. Reading a sample is then
one read of a few bytes, which webdataset takes apart. The only file that imports webdataset.
"""

from __future__ import annotations

import io
import tarfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_expander

from spml_dist.errors import DataError
from spml_dist.schema import Sample
from spml_dist.shards.manifest import Manifest, Shard, read_manifest
from spml_dist.shards.members import decode

OPEN_SHARDS = 64
"""Shards whose index and file a reader keeps open"""

REMEDY = "copy or pack the shard again; `spml-dist verify FOLDER` checks them all"

Span = tuple[int, int]
"""First byte of a sample in its tar, and the byte after its last"""


class Reader:
    """Samples by shard and place. Pickles without its open files.

    folder: where the manifest lies; shards are found relative to it. masks: read the ground truth too, where
    there is one. Whatever is wrong with a shard is a DataError that names the tar and the sample's key.
    """

    def __init__(self, folder: str | Path, manifest: Manifest, masks: bool = True):
        self.folder = Path(folder)
        self.manifest = manifest
        self.masks = masks
        self._open: OrderedDict[int, tuple[BinaryIO, list[Span]]] = OrderedDict()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict()}

    def read(self, shard: int, index: int) -> Sample:
        """The sample at a place of a shard, decoded and checked."""
        path = _path(self.folder, self.manifest.shards[shard].url)
        file, spans = self._shard(shard, path)
        start, stop = spans[index]
        file.seek(start)
        members = _members(path, file.read(stop - start))
        if not self.masks:
            members.pop("mask.png", None)
        try:
            return decode(members.pop("__key__"), members, len(self.manifest.classes))
        except DataError as error:
            raise DataError(f"{path}: {error.what}", error.value, error.remedy) from error

    def _shard(self, shard: int, path: Path) -> tuple[BinaryIO, list[Span]]:
        if shard not in self._open:
            while len(self._open) >= OPEN_SHARDS:
                self._open.popitem(last=False)[1][0].close()
            self._open[shard] = _open_shard(path, self.manifest.shards[shard])
        self._open.move_to_end(shard)
        return self._open[shard]


def samples(folder: str | Path, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
    """Samples start, start + 1, … (to before `stop`, None = to the end) in the order of the manifest."""
    manifest = read_manifest(folder)
    reader = Reader(folder, manifest)
    stop = manifest.samples if stop is None else stop
    first = 0
    for number, shard in enumerate(manifest.shards):
        for index in range(max(start - first, 0), min(stop - first, shard.samples)):
            yield reader.read(number, index)
        first += shard.samples


def _path(folder: Path, url: str) -> Path:
    """Where a shard's address leads. DataError: not a path (webdataset would run `pipe:` in a shell)."""
    if scheme := urlsplit(url).scheme:
        raise DataError(f"{folder}: address of a shard", url, f"{scheme}: is not read here; use a path")
    return folder / url


def _open_shard(path: Path, shard: Shard) -> tuple[BinaryIO, list[Span]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be opened", error.strerror, REMEDY) from error
    try:
        size, spans = file.seek(0, io.SEEK_END), _spans(path, file)
        _agree(path, "bytes", size, shard.bytes)
        _agree(path, "samples", len(spans), shard.samples)
    except BaseException:
        file.close()
        raise
    return file, spans


def _spans(path: Path, file: BinaryIO) -> list[Span]:
    """Where each sample lies, by the tar's headers alone."""
    spans: list[Span] = []
    previous = None
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as members:
            for member in members:
                key, _ = base_plus_ext(member.name)
                if key is None or not member.isreg():
                    continue
                start = spans.pop()[0] if key == previous else member.offset
                blocks = -(-member.size // tarfile.BLOCKSIZE)
                spans.append((start, member.offset_data + blocks * tarfile.BLOCKSIZE))
                previous = key
    except tarfile.TarError as error:
        raise DataError(f"{path}: damaged or truncated tar", error, REMEDY) from error
    return spans


def _agree(path: Path, what: str, seen: int, promised: int) -> None:
    if seen != promised:
        raise DataError(f"{path}: not the {promised} {what} that the manifest promises", seen, REMEDY)


def _members(path: Path, data: bytes) -> dict:
    """One sample's members by extension, and `__key__`."""
    stream = io.BytesIO(data + bytes(2 * tarfile.BLOCKSIZE))
    try:
        (sample,) = group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}]))
    except (tarfile.TarError, ValueError) as error:
        raise DataError(f"{path}: damaged tar", error.args[0], REMEDY) from error
    del sample["__url__"]
    return sample
