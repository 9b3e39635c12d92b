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

from spml_dist.data.format.keys import image_id_of
from spml_dist.data.format.label_statistics import Tally
from spml_dist.data.format.manifest import Counts, Shard, frozen
from spml_dist.data.format.members import encode
from spml_dist.data.pack.output_store import Place
from spml_dist.errors import DataError
from spml_dist.records import Sample

SEEN = ".seen"
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Rejected:
    """An image that cannot be packed."""

    image_id: str
    reason: str


ReadPart = Callable[[int], Iterator[tuple[Sample, bytes] | Rejected]]
"""number of a part -> its samples, each with the JPEG that stands for its image, or why there is none"""

Entry = tuple[tarfile.TarInfo, bytes]
"""a member of a tar and its content"""


@dataclass(frozen=True)
class Described:
    """What the manifest says of the whole."""

    name: str
    """of the tars: letters, digits, - and _"""
    split: str
    labels: str
    classes: tuple[str, ...]
    background: int | None
    regions: str = ""
    """how the over-segmentation was made"""


@dataclass(frozen=True)
class Part:
    """What became of one part."""

    number: int
    shard: Shard | None
    """None where no image of the part could be packed"""
    counts: Counts
    keys: tuple[str, ...]
    rejected: tuple[Rejected, ...]

    def to_json(self) -> str:
        """The part as its record holds it."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def of_json(text: str | bytes) -> Part:
        """The inverse of `to_json`."""
        said = json.loads(text)
        return Part(
            said["number"],
            said["shard"] and Shard(**said["shard"]),
            Counts(**{name: frozen(value) for name, value in said["counts"].items()}),
            tuple(said["keys"]),
            tuple(Rejected(**each) for each in said["rejected"]),
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

    read: ReadPart
    place: Place
    described: Described
    strict: bool
    """whether the first image that cannot be packed is an error"""
    seen: Path | None = None
    """folder where each running part has a file of as many bytes as it has seen images"""

    def __call__(self, number: int) -> Part:
        """Write one part. Raises DataError for what concerns the whole set, OSError where writing fails."""
        name = part_name(self.described.name, number)
        tally, rejected = Tally(len(self.described.classes)), []
        with self.place.scratch(f"{name}.tar") as path:
            with open(path, "wb") as file, _counter(self.seen, name) as count:
                _write(file, self._members(number, tally, rejected), count)
            shard = None
            if tally.samples:
                shard = _shard(path, f"{name}.tar", tally.samples)
                self.place.keep(path, shard.url)
        part = Part(number, shard, tally.counts(), tuple(sorted(tally.keys)), tuple(rejected))
        self.place.note(f"{name}.json", part.to_json())
        return part

    def _members(self, number: int, tally: Tally, rejected: list[Rejected]) -> Iterator[list[Entry]]:
        """The tar's entries image by image, none for a rejected one."""
        for read in self.read(number):
            found = read if isinstance(read, Rejected) else _entries(*read)
            if isinstance(found, Rejected):
                if self.strict:
                    raise DataError(found.reason)
                rejected.append(found)
                yield []
            else:
                tally.add(read[0])
                yield found


def _entries(sample: Sample, jpeg: bytes) -> list[Entry] | Rejected:
    members = encode(sample, jpeg)
    longest = max(len(f"{sample.key}.{member}".encode()) for member, _ in members)
    if not sample.key or "." in sample.key or "/" in sample.key or longest > _LONGEST_NAME:
        seen = f"{sample.key}: not usable as a sample key (got {longest} bytes with its longest member)"
        remedy = f"no dots or slashes, at most {_LONGEST_NAME} bytes: rename the image"
        return Rejected(image_id_of(sample.key), f"{seen}; {remedy}")
    return [(_entry(f"{sample.key}.{member}", content), content) for member, content in members]


def _entry(name: str, content: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o644
    return entry


def _write(file: io.BufferedWriter, images: Iterator[list[Entry]], count: Callable[[], None]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as tar:
        for entries in images:
            for entry, content in entries:
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
    with (folder / f"{name}{SEEN}").open("wb", buffering=0) as file:
        yield lambda: file.write(b".")
