"""Random access to the samples of packed shards.

A shard is indexed on first use: the members of a sample are neighbours in its tar. Reading a sample is then
one read of a few bytes, which webdataset takes apart. The only file that imports webdataset.
"""

from __future__ import annotations

import io
import tarfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import BinaryIO, NamedTuple

from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_expander

from spml_dist.data.format.manifest import Manifest, Shard, read_manifest
from spml_dist.data.format.members import UNTRAINED, decode
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.errors import DataError
from spml_dist.files import address
from spml_dist.records import Sample

OPEN_SHARDS = 64
"""Shards whose index and file a reader keeps open, if nobody says otherwise"""

REMEDY = "copy or pack the shard again; `spml-dist verify FOLDER` checks them all"


class Span(NamedTuple):
    """Where a sample lies in its tar: its first byte, and the byte after its last."""

    start: int
    stop: int
    key: str


class CorruptSample(DataError):
    """A sample that does not decode, in a tar that is otherwise as its manifest says."""

    def __init__(self, what: str, value: object = None, remedy: str = "", key: str = ""):
        super().__init__(what, value, remedy)
        self.key = key


class Reader:
    """Samples by shard and place. Pickles without its open files.

    folder: where the manifest lies, a path or an address; shards are found relative to it. masks: read what
    training has no use for too: ground truth and confidence, where they are. cache: for shards that lie at
    addresses. Local shards are read in place, and their size is checked; remote ones are fetched whole, and
    size and digest are checked.
    open_shards: whose file and index it keeps; more make it read indices again.
    Whatever is wrong with a shard is a DataError that names the tar and the sample's key.
    """

    def __init__(
        self,
        folder: str | Path,
        manifest: Manifest,
        masks: bool = True,
        cache: ShardCache | None = None,
        open_shards: int = OPEN_SHARDS,
    ):
        self.folder = folder
        self.manifest = manifest
        self.masks = masks
        self.cache = cache or ShardCache()
        self.open_shards = open_shards
        self._open: OrderedDict[int, tuple[BinaryIO, list[Span]]] = OrderedDict()
        self._expected: Sequence[int] = ()

    # Open files do not travel to loader processes, which open their own.
    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": OrderedDict(), "_expected": ()}

    def read(self, shard: int, index: int) -> Sample:
        """The sample at a place of a shard, decoded and checked. CorruptSample: it cannot be used."""
        return self.read_encoded(shard, index)[0]

    def read_encoded(self, shard: int, index: int) -> tuple[Sample, bytes]:
        """The same, and the JPEG that stands for its image."""
        name = self.name(shard)
        file, spans = self._shard(shard, name)
        start, stop, _ = spans[index]
        file.seek(start)
        members = _members(name, file.read(stop - start))
        if not self.masks:
            for member in UNTRAINED:
                members.pop(member, None)
        key = members.pop("__key__")
        try:
            return decode(key, members, len(self.manifest.classes)), members["jpg"]
        except DataError as error:
            raise CorruptSample(f"{name}: {error.what}", error.value, error.remedy, key) from error

    def samples(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """Samples start, start + 1, … (to before `stop`, None = to the end) in the order of the manifest."""
        stop = self.manifest.samples if stop is None else stop
        first = 0
        for number, shard in enumerate(self.manifest.shards):
            for index in range(max(start - first, 0), min(stop - first, shard.samples)):
                yield self.read(number, index)
            first += shard.samples

    def keys(self, shard: int) -> list[str]:
        """The keys of a shard's samples, in its order."""
        _, spans = self._shard(shard, self.name(shard))
        return [span.key for span in spans]

    def corrupt(self, shard: int) -> int:
        """How many samples of a shard cannot be used; reads it whole."""
        count = 0
        for index in range(self.manifest.shards[shard].samples):
            try:
                self.read(shard, index)
            except CorruptSample:
                count += 1
        return count

    def expect(self, shards: Sequence[int]) -> None:
        """Fetch in the background what lies at addresses of the shards that will be read soon."""
        # Called at every step, but windows change rarely.
        if shards != self._expected:
            self._expected = shards
            if any(address.is_remote(self.name(shard)) for shard in shards):
                Thread(target=self._fetch, args=(shards,), name="expected shards", daemon=True).start()

    def name(self, shard: int) -> str:
        """Path or address of a shard."""
        return address.join(self.folder, self.manifest.shards[shard].url)

    def _fetch(self, shards: Sequence[int]) -> None:
        for shard in shards:
            with suppress(DataError):  # met again, and raised, when the shard is read
                self.cache.fetch_ahead(self.name(shard), self.manifest.shards[shard])

    def _shard(self, shard: int, name: str) -> tuple[BinaryIO, list[Span]]:
        if shard not in self._open:
            # The longest unused goes first; on a cache's shard that also frees its room on the disk.
            while len(self._open) >= self.open_shards:
                self._open.popitem(last=False)[1][0].close()
            self._open[shard] = _indexed(name, self.manifest.shards[shard], self.cache)
        self._open.move_to_end(shard)
        return self._open[shard]


def samples(
    folder: str | Path, start: int = 0, stop: int | None = None, cache: ShardCache | None = None
) -> Iterator[Sample]:
    """Samples start, start + 1, … (to before `stop`, None = to the end) in the order of the manifest."""
    yield from Reader(folder, read_manifest(folder), cache=cache).samples(start, stop)


def _indexed(name: str, shard: Shard, cache: ShardCache) -> tuple[BinaryIO, list[Span]]:
    """A shard, open, and where its samples lie."""
    file = cache.open(name, shard) if address.is_remote(name) else _opened(name)
    try:
        _agree(name, "bytes", file.seek(0, io.SEEK_END), shard.bytes)
        spans = _spans(name, file)
        _agree(name, "samples", len(spans), shard.samples)
    except BaseException:
        file.close()
        raise
    return file, spans


def _opened(path: str) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be opened", error.strerror, REMEDY) from error


def _spans(name: str, file: BinaryIO) -> list[Span]:
    """Where each sample lies, by the tar's headers alone."""
    spans: list[Span] = []
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as members:
            for member in members:
                key, _ = base_plus_ext(member.name)
                if key is None or not member.isreg():
                    continue
                # A further member of the sample before prolongs its span.
                again = spans and spans[-1].key == key
                start = spans.pop().start if again else member.offset
                # A tar pads every member to whole blocks.
                blocks = -(-member.size // tarfile.BLOCKSIZE)
                spans.append(Span(start, member.offset_data + blocks * tarfile.BLOCKSIZE, key))
    except tarfile.TarError as error:
        raise DataError(f"{name}: damaged or truncated tar", error, REMEDY) from error
    return spans


def _agree(name: str, what: str, actual: int, promised: int) -> None:
    if actual != promised:
        raise DataError(f"{name}: not the {promised} {what} that the manifest promises", actual, REMEDY)


def _members(name: str, data: bytes) -> dict:
    """One sample's members by extension, and `__key__`."""
    # Two empty blocks end a tar: with them the piece that was read is one.
    stream = io.BytesIO(data + bytes(2 * tarfile.BLOCKSIZE))
    try:
        (sample,) = group_by_keys(tar_file_expander([{"url": name, "stream": stream}]))
    except (tarfile.TarError, ValueError) as error:
        raise DataError(f"{name}: damaged tar", error.args[0], REMEDY) from error
    del sample["__url__"]
    return sample
