"""One part of a pack: the samples of one tar, written and counted, and a record that it is finished."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from spml_dist.data.format.keys import LONGEST, image_id_of
from spml_dist.data.format.label_statistics import LabelStatistics
from spml_dist.data.format.manifest import VERSION, LabelCounts, Shard, frozen
from spml_dist.data.format.members import encode
from spml_dist.data.pack.output_store import OutputStore
from spml_dist.errors import DataError
from spml_dist.records import Sample

COUNTER = ".seen"
_USTAR_NAME = 100
"""bytes of a member's name that every tar reader takes; longer ones stand in a PAX header"""


@dataclass(frozen=True)
class Rejection:
    """An image that cannot be packed."""

    image_id: str
    reason: str


PartReader = Callable[[int], Iterator[tuple[Sample, bytes] | Rejection]]
"""number of a part -> its samples, each with the JPEG that stands for its image, or why there is none"""

TarEntry = tuple[tarfile.TarInfo, bytes]
"""a member of a tar and its content"""


@dataclass(frozen=True)
class PackDescription:
    """What the manifest says of the whole."""

    name: str
    """of the tars: letters, digits, - and _"""
    split: str
    labels: str
    classes: tuple[str, ...]
    background: int | None
    regions: str = ""
    """how the over-segmentation was made"""
    version: int = VERSION
    """of the shard format"""


@dataclass(frozen=True)
class PackPart:
    """What became of one part."""

    number: int
    shard: Shard | None
    """None where no image of the part could be packed"""
    counts: LabelCounts
    keys: tuple[str, ...]
    rejected: tuple[Rejection, ...]

    def to_json(self) -> str:
        """The part as its record holds it."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def of_json(text: str | bytes) -> PackPart:
        """The inverse of `to_json`."""
        content = json.loads(text)
        return PackPart(
            content["number"],
            content["shard"] and Shard(**content["shard"]),
            LabelCounts(**{name: frozen(value) for name, value in content["counts"].items()}),
            tuple(content["keys"]),
            tuple(Rejection(**each) for each in content["rejected"]),
        )


def part_name(name: str, number: int) -> str:
    """What the tar and the record of a part are called, without their suffixes."""
    return f"{name}-{number:06d}"


def part_sizes(images: int, size: int) -> list[int]:
    """How many of so many images each part of `size` holds."""
    return [min(size, images - first) for first in range(0, images, size)]


@dataclass(frozen=True)
class PartWriter:
    """Writes part after part of one pack; it travels to the processes that do."""

    read: PartReader
    store: OutputStore
    description: PackDescription
    strict: bool
    """whether the first image that cannot be packed is an error"""
    counters: Path | None = None
    """folder where each running part has a file of as many bytes as images it has read"""

    def __call__(self, number: int) -> PackPart:
        """Write one part. Raises DataError for what concerns the whole set, OSError where writing fails."""
        name = part_name(self.description.name, number)
        statistics = LabelStatistics(len(self.description.classes))
        rejected: list[Rejection] = []
        with self.store.scratch(f"{name}.tar") as path:
            with open(path, "wb") as file, _counter(self.counters, name) as count:
                _write(file, self._members(number, statistics, rejected), count)
            shard = None
            if statistics.samples:
                shard = _shard(path, f"{name}.tar", statistics.samples)
                self.store.keep(path, shard.url)
        # Last: a record says that its tar is there, whole. After a kill before, the part is read again.
        part = PackPart(number, shard, statistics.counts(), tuple(sorted(statistics.keys)), tuple(rejected))
        self.store.note(f"{name}.json", part.to_json())
        return part

    def _members(
        self, number: int, statistics: LabelStatistics, rejected: list[Rejection]
    ) -> Iterator[list[TarEntry]]:
        """The tar's entries image by image, none for a rejected one."""
        for read in self.read(number):
            entries = read if isinstance(read, Rejection) else _entries(*read)
            if isinstance(entries, Rejection):
                if self.strict:
                    raise DataError(entries.reason)
                rejected.append(entries)
                yield []
            else:
                assert not isinstance(read, Rejection)
                statistics.add(read[0])
                yield entries


def _entries(sample: Sample, jpeg: bytes) -> list[TarEntry] | Rejection:
    size = len(sample.key.encode())
    if not sample.key or "." in sample.key or "/" in sample.key:
        remedy = "no dots or slashes: rename the image"
        return Rejection(image_id_of(sample.key), f"{sample.key}: not usable as a sample key; {remedy}")
    if size > LONGEST:
        limit = f"longer than the {LONGEST:,} bytes that spml-dist takes (got {size:,})"
        reason = f"{sample.key}: not usable as a sample key: {limit}; rename the image"
        return Rejection(image_id_of(sample.key), reason)
    members = encode(sample, jpeg)
    return [(_entry(f"{sample.key}.{member}", content), content) for member, content in members]


def _entry(name: str, content: bytes) -> tarfile.TarInfo:
    # Neither time nor owner: the same samples give the same bytes whenever and by whomever they are packed.
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o644
    return entry


def _write(file: io.BufferedWriter, images: Iterator[list[TarEntry]], count: Callable[[], None]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as tar:
        for entries in images:
            for entry, content in entries:
                long = len(entry.name.encode()) > _USTAR_NAME
                tar.format = tarfile.PAX_FORMAT if long else tarfile.USTAR_FORMAT
                tar.addfile(entry, io.BytesIO(content))
            count()


def _shard(path: Path, name: str, samples: int) -> Shard:
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return Shard(name, samples, path.stat().st_size, digest)


@contextmanager
def _counter(folder: Path | None, name: str) -> Iterator[Callable[[], None]]:
    """Counts images by the size of a file, which others can look at, where there is a folder for it."""
    if folder is None or not folder.is_dir():  # a worker on a machine that does not share the folder
        yield lambda: None
        return
    # The size of a file is seen by other processes at once, needs no connection to them and survives nothing.
    with (folder / f"{name}{COUNTER}").open("wb", buffering=0) as file:

        def count() -> None:
            file.write(b".")

        yield count
