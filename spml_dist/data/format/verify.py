"""Verify a packed folder: digests, completeness, and every single sample."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from spml_dist.data.format.label_statistics import LabelStatistics
from spml_dist.data.format.manifest import FILE, LabelCounts, Manifest, Shard, present_counts, read_manifest
from spml_dist.data.format.members import decode
from spml_dist.errors import DataError
from spml_dist.files import address
from spml_dist.progress import progress_bar
from spml_dist.records import Sample

STRAY = "not in the manifest: left by another pack"
"""the problem of a tar too many"""

Note = Callable[[str, str | None, str], None]
"""(tar, key or None, problem)"""


def verify(folder: str | Path, progress: bool = False) -> dict[str, Any]:
    """Read everything that a packed folder holds and compare it with its manifest.

    folder: a path or an address, whose tars are fetched one at a time. progress: show a bar on stderr.
    Returns {folder, name, split, labels, shards, samples, bytes, problems}; a problem is {tar, key, problem},
    key null where it is about the whole tar. Raises DataError only if the manifest itself, or a remote tar
    that may be there, cannot be read.
    """
    manifest = read_manifest(folder)
    problems: list[dict[str, str | None]] = []

    def note(tar: str, key: str | None, problem: str) -> None:
        problems.append({"tar": tar, "key": key, "problem": problem})

    statistics = LabelStatistics(len(manifest.classes))
    for shard in progress_bar(manifest.shards, str(folder), unit="tars", shown=progress):
        with _local(address.join(folder, shard.url)) as path:
            _verify_shard(path, shard, statistics, note)
    _verify_whole(folder, manifest, statistics, note, sound=not problems)
    return {
        "folder": str(folder),
        "name": manifest.name,
        "split": manifest.split,
        "labels": manifest.labels,
        "shards": len(manifest.shards),
        "samples": statistics.samples,
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "problems": problems,
    }


def packs_at(out: str) -> list[str]:
    """A packed folder or its address, as it is; the packed folders right below any other folder."""
    if address.is_remote(out) or (Path(out) / FILE).exists():
        return [out]
    packs = (path.parent for path in Path(out).glob(f"*/{FILE}"))
    return sorted(str(pack) for pack in packs if not pack.name.startswith(".")) or [out]


def require_sound(reports: Iterable[Mapping[str, Any]]) -> None:
    """Raise DataError, naming the first problem, if a report of `verify` has one."""
    problems = [(report["folder"], problem) for report in reports for problem in report["problems"]]
    if not problems:
        return
    folder, first = problems[0]
    key = f", {first['key']}" if first["key"] else ""
    remedy = "remove it" if first["problem"] == STRAY else "pack again"
    raise DataError(
        f"{address.join(folder, first['tar'])}{key}: {first['problem']}",
        f"{len(problems)} problem{'s' * (len(problems) > 1)}",
        f"{remedy}, or copy the file again from where it was packed",
    )


@contextmanager
def _local(tar: str) -> Iterator[Path]:
    """The tar where it can be read, for a while; a path without a file if there is none."""
    if not address.is_remote(tar):
        yield Path(tar)
        return
    with tempfile.TemporaryDirectory(prefix="spml-dist-") as aside:
        path = Path(aside) / "shard.tar"
        try:
            address.fetch(tar, path, address.RETRY_SECONDS)
        except DataError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
        yield path


def _verify_shard(path: Path, shard: Shard, statistics: LabelStatistics, note: Note) -> None:
    if not path.is_file():
        return note(shard.url, None, "the file is missing")
    if (size := path.stat().st_size) != shard.bytes:
        note(
            shard.url,
            None,
            f"{size} bytes, not {shard.bytes}: {'truncated' if size < shard.bytes else 'changed'}",
        )
    elif _digest(path) != shard.sha256:
        note(shard.url, None, "its sha256 is not the manifest's: changed after packing")
    # A tar of another digest is read all the same: what is wrong with which sample tells what happened to it.
    before = statistics.samples
    for sample in _samples(path, shard, len(statistics.labelled), note):
        try:
            statistics.add(sample)
        except DataError as error:
            note(shard.url, sample.key, error.what)
    if (samples := statistics.samples - before) != shard.samples:
        note(shard.url, None, f"{samples} sound samples, not {shard.samples}")


def _samples(path: Path, shard: Shard, num_classes: int, note: Note) -> Iterator[Sample]:
    for key, pairs in groupby(_members(path, shard, note), key=lambda member: member[0]):
        members = [(member, content) for _, member, content in pairs]
        if len(dict(members)) < len(members):
            note(shard.url, key, "a member is there twice")
            continue
        try:
            yield decode(key, dict(members), num_classes)
        except DataError as error:
            note(shard.url, key, str(DataError(error.what, error.value)))


def _members(path: Path, shard: Shard, note: Note) -> Iterator[tuple[str, str, bytes]]:
    key = None
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                key, _, member = entry.name.partition(".")
                content = tar.extractfile(entry)
                if content is None:
                    note(shard.url, key, f"{entry.name} is not a file")
                else:
                    yield key, member, content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        note(shard.url, key, f"the tar ends or breaks after this sample: {error}")


def _verify_whole(
    folder: str | Path, manifest: Manifest, statistics: LabelStatistics, note: Note, sound: bool
) -> None:
    if manifest.samples != sum(shard.samples for shard in manifest.shards):
        note("manifest.json", None, "samples do not add up over the shards")
    # Where a sample is missing the counts differ for that, and to say so again would hide it.
    if sound and not _agree(manifest.counts, statistics.counts(), present_counts(folder)):
        note("manifest.json", None, "counts are not those of the samples")
    if address.is_remote(folder):
        return  # servers do not say what else they hold
    names = {shard.url for shard in manifest.shards}
    tars = (path.name for path in Path(folder).glob("*.tar"))
    # Hidden files are of the system's making, or of a copy that is still under way.
    for stray in sorted(name for name in tars if name not in names and not name.startswith(".")):
        note(stray, None, STRAY)


def _agree(promised: LabelCounts, actual: LabelCounts, names: Iterable[str]) -> bool:
    return all(getattr(promised, name) == getattr(actual, name) for name in names)


def _digest(path: Path) -> str:
    with path.open("rb") as tar:
        return hashlib.file_digest(tar, "sha256").hexdigest()
