"""Samples -> NAME-000000.tar … and manifest.json, byte for byte the same for the same samples.

A pack is made of parts, one tar each, that any number of processes write side by side. What is finished
survives a kill: the same pack started again goes on.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, fields
from functools import partial
from itertools import chain, islice
from pathlib import Path

from spml_dist import cluster
from spml_dist.data.format.manifest import VERSION, LabelCounts, Manifest, sum_counts
from spml_dist.data.format.members import encode_jpeg
from spml_dist.data.pack.output_store import REJECTED, FolderStore, OutputStore, output_store
from spml_dist.data.pack.part_progress import part_progress
from spml_dist.data.pack.parts import (
    PackDescription,
    PackPart,
    PartReader,
    PartWriter,
    Rejection,
    part_name,
    part_sizes,
)
from spml_dist.errors import ConfigError, DataError
from spml_dist.files.address import join
from spml_dist.records import Sample

__all__ = ["PackDescription", "PartReader", "Rejection", "pack", "pack_parts", "part_sizes"]

_MISTAKES = (DataError, ConfigError)


def pack_parts(
    read_part: PartReader,
    sizes: Sequence[int],
    out: str | Path,
    description: PackDescription,
    *,
    workers: int = 1,
    strict: bool = False,
    fingerprint: str = "",
) -> Manifest:
    """Write a pack into a folder or to an address: part number n becomes NAME-nnnnnn.tar.

    read_part: travels to the workers, so it must pickle unless there is one worker. sizes: images of each
    part. fingerprint: what the pack is made from; the parts that an interrupted pack of the same fingerprint,
    sizes and description has left are taken over; "" = begin anew.
    Images that read_part rejects are listed in rejected.jsonl and counted; with `strict` the first is an
    error. A part without any sound image gives no tar. An earlier pack in a folder is replaced when the new
    one is complete. After a mistake in the data (DataError) nothing unfinished is kept; after anything else
    that ends it, a full disk or a kill, finished parts are.
    Raises ConfigError for fewer than one worker; DataError for an empty set, a set without a sound image,
    a key that comes twice, a name that is no plain word, a place that cannot be written, and whatever
    read_part raises.
    """
    if workers < 1:
        raise ConfigError("--workers", workers, "give at least 1")
    _require_plain(description.name)
    store = output_store(out)
    identity = _identity(description, sizes, strict, fingerprint)
    names = [part_name(description.name, number) for number in range(len(sizes))]
    with _writable(out), store.held(), _resumable(identity):
        parts = _finished(store, store.begin(identity), names)
        if parts:
            print(f"{description.name}: {len(parts)} of {len(names)} tars are there already", file=sys.stderr)
        with _clearing(store, _MISTAKES if fingerprint else BaseException), _counters(store) as counters:
            writer = PartWriter(read_part, store, description, strict, counters)
            _write_parts(writer, parts, dict(zip(names, sizes, strict=True)), workers)
            # Parts come as workers finish; the manifest is the same for any number of workers.
            ordered = [parts[number] for number in sorted(parts)]
            manifest = _manifest(description, ordered)
        _complete(store, manifest, ordered, out)
    return manifest


def pack(
    samples: Iterable[Sample],
    out: str | Path,
    name: str,
    *,
    split: str,
    labels: str,
    classes: tuple[str, ...],
    background: int | None = None,
    shard_size: int = 256,
    jpeg: Callable[[Sample], bytes] = encode_jpeg,
) -> Manifest:
    """Write a stream of samples, in their order, as tars of `shard_size` samples into the folder `out`.

    Samples are drawn one at a time, by this process. jpeg: gives the bytes that stand for a sample's image.
    The first sample that cannot be packed is an error; otherwise as `pack_parts` without a fingerprint.
    """
    _require_plain(name)
    store = output_store(out)
    description = PackDescription(name, split, labels, tuple(classes), background)
    with _writable(out), store.held():
        store.begin("")
        with _clearing(store, BaseException):
            parts = []
            for number, part in enumerate(_cut(samples, shard_size)):
                read = partial(_with_jpeg, part, jpeg)
                parts.append(PartWriter(read, store, description, strict=True)(number))
            manifest = _manifest(description, parts)
        _complete(store, manifest, parts, out)
    return manifest


def _write_parts(
    writer: PartWriter, parts: dict[int, PackPart], images: Mapping[str, int], workers: int
) -> None:
    """Add to the finished parts all others, as they come. images: of each part, by its name, in order."""
    names = list(images)
    missing = [number for number in range(len(names)) if number not in parts]
    finished = {names[number] for number in parts}
    assert writer.counters is not None
    with (
        part_progress(writer.description.name, images, finished, writer.counters) as finish,
        closing(cluster.spread(writer, missing, workers)) as written,
    ):
        for part in written:
            parts[part.number] = part
            finish(names[part.number])


def _identity(description: PackDescription, sizes: Sequence[int], strict: bool, fingerprint: str) -> str:
    """What finished parts have to agree in to be taken over; "" takes over nothing."""
    counts = [each.name for each in fields(LabelCounts)]  # records of another release may count less
    content = json.dumps([VERSION, counts, asdict(description), list(sizes), strict, fingerprint])
    return hashlib.sha256(content.encode()).hexdigest() if fingerprint else ""


def _with_jpeg(
    samples: Iterable[Sample], jpeg: Callable[[Sample], bytes], number: int
) -> Iterator[tuple[Sample, bytes]]:
    """A `PartReader` of one part."""
    return ((sample, jpeg(sample)) for sample in samples)


def _cut(samples: Iterable[Sample], size: int) -> Iterator[Iterator[Sample]]:
    stream = iter(samples)
    for first in stream:
        yield chain([first], islice(stream, size - 1))


def _require_plain(name: str) -> None:
    if not name or not all(letter.isalnum() or letter in "-_" for letter in name):
        raise DataError("name of the tars", repr(name), "use letters, digits, - and _")


def _finished(store: OutputStore, records: dict[str, bytes], names: Sequence[str]) -> dict[int, PackPart]:
    """The parts that an interrupted pack has finished: those with a record and the tar that it speaks of."""
    tars = store.tars() if records else {}
    parts: dict[int, PackPart] = {}
    for number, name in enumerate(names):
        if record := records.get(f"{name}.json"):
            part = PackPart.of_json(record)
            # By its size alone: a tar gets its name when it is whole, and to read all again takes long.
            if part.shard is None or tars.get(part.shard.url) == part.shard.bytes:
                parts[number] = part
    return parts


def _manifest(description: PackDescription, parts: Sequence[PackPart]) -> Manifest:
    _require_one_part_a_key(parts)
    rejected = [each for part in parts for each in part.rejected]
    shards = tuple(part.shard for part in parts if part.shard)
    if not shards and rejected:
        reason = f"all {len(rejected)} rejected, the first for: {rejected[0].reason}"
        raise DataError(f"{description.name}: no image that can be packed", reason, "mend the images")
    if not shards:
        raise DataError(f"{description.name}: no samples to pack", None, "give at least one image")
    return Manifest(
        name=description.name,
        split=description.split,
        labels=description.labels,
        classes=tuple(description.classes),
        background=description.background,
        samples=sum(shard.samples for shard in shards),
        counts=sum_counts(part.counts for part in parts),
        shards=shards,
        regions=description.regions,
        rejected=len(rejected),
        version=description.version,
    )


def _require_one_part_a_key(parts: Iterable[PackPart]) -> None:
    first: dict[str, PackPart] = {}
    for part in parts:
        for key in part.keys:
            if (other := first.setdefault(key, part)) is not part:
                assert other.shard and part.shard, "they hold a sample"
                tars = f"in {other.shard.url} and {part.shard.url}"
                raise DataError(f"{key}: two samples of one key", tars, "give every image its own id")


def _complete(store: OutputStore, manifest: Manifest, parts: Iterable[PackPart], out: str | Path) -> None:
    rejected = [each for part in parts for each in part.rejected]
    lines = [json.dumps({"image": e.image_id, "reason": e.reason}, ensure_ascii=False) for e in rejected]
    store.complete(manifest, "".join(f"{line}\n" for line in lines))
    if rejected:
        share = f"{len(rejected)} of {manifest.samples + len(rejected)} images rejected"
        print(f"{share}; {join(out, REJECTED)} says why", file=sys.stderr)


@contextmanager
def _writable(out: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "make room or choose another --out; what was finished is kept"
        raise DataError(f"{error.filename or out}: cannot be written", error.strerror, remedy) from error


@contextmanager
def _resumable(identity: str) -> Iterator[None]:
    """An interrupt says so where the same pack started again takes over what is finished."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(*(["the same command goes on"] if identity else [])) from interrupt


@contextmanager
def _clearing(
    store: OutputStore, mistakes: type[BaseException] | tuple[type[BaseException], ...]
) -> Iterator[None]:
    """Keep nothing that is unfinished after a mistake: what was made from it would outlive its correction."""
    try:
        yield
    except mistakes:
        store.clear()
        raise


@contextmanager
def _counters(store: OutputStore) -> Iterator[Path]:
    """A folder for what running parts have seen; it holds nothing else, because it is looked at often."""
    with tempfile.TemporaryDirectory(
        prefix="seen-", dir=store.unfinished if isinstance(store, FolderStore) else None
    ) as folder:
        yield Path(folder)
