"""Samples -> NAME-000000.tar … and manifest.json, byte for byte the same for the same samples."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from spml_dist.errors import DataError
from spml_dist.schema import Sample
from spml_dist.shards import manifest as manifests
from spml_dist.shards.manifest import Manifest, Shard
from spml_dist.shards.members import encode, encode_jpeg
from spml_dist.shards.tally import Tally

_LONGEST_NAME = 100
_ASIDE = ".packing"


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
    """Write samples, in their order, as tars of `shard_size` samples into the folder `out`.

    Samples are drawn one at a time. The tars are written aside; a pack that was there before is replaced
    only when the new one is complete, and stays as it was when this one fails. The manifest comes last:
    a folder without one is no finished pack. jpeg: gives the bytes that stand for a sample's picture.
    Raises DataError for an empty set, an unusable or repeated key, a name that is no plain word, or a
    folder that cannot be written.
    """
    if not name or not all(letter.isalnum() or letter in "-_" for letter in name):
        raise DataError("name of the tars", repr(name), "use letters, digits, - and _")
    out = Path(out)
    aside = out / _ASIDE
    tally = Tally(len(classes))
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        shards = tuple(
            _write_shard(tally.counted(part), aside / f"{name}-{number:06d}.tar", jpeg)
            for number, part in enumerate(_parts(samples, shard_size))
        )
        if not shards:
            raise DataError(f"{name}: no samples to pack", None, "give at least one image")
        manifest = Manifest(
            name, split, labels, tuple(classes), background, tally.samples, tally.counts(), shards
        )
        _replace(out, aside, manifest)
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: cannot be written", error.strerror, "choose another --out"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


def _parts(samples: Iterable[Sample], size: int) -> Iterator[Iterator[Sample]]:
    stream = iter(samples)
    for first in stream:
        yield chain([first], islice(stream, size - 1))


def _write_shard(samples: Iterable[Sample], path: Path, jpeg: Callable[[Sample], bytes]) -> Shard:
    count = 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as tar:
        for count, sample in enumerate(samples, start=1):  # noqa: B007
            for member, content in encode(sample, jpeg(sample)):
                tar.addfile(_entry(sample.key, member, len(content)), io.BytesIO(content))
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return Shard(path.name, count, path.stat().st_size, digest)


def _entry(key: str, member: str, size: int) -> tarfile.TarInfo:
    name = f"{key}.{member}"
    if not key or "." in key or "/" in key or len(name.encode()) > _LONGEST_NAME:
        raise DataError(
            f"{key}: not usable as a sample key",
            f"{len(name.encode())} bytes with {member}",
            f"no dots or slashes, at most {_LONGEST_NAME} bytes: rename the image",
        )
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    return entry


def _replace(out: Path, aside: Path, manifest: Manifest) -> None:
    stale = _tars_of(out) | set(out.glob(f"{manifest.name}-" + "[0-9]" * 6 + ".tar"))
    (out / manifests.FILE).unlink(missing_ok=True)
    for tar in stale:
        tar.unlink(missing_ok=True)
    for shard in manifest.shards:
        os.replace(aside / shard.url, out / shard.url)
    manifests.write_manifest(out, manifest)


def _tars_of(out: Path) -> set[Path]:
    try:
        shards = manifests.read_manifest(out).shards
    except DataError:
        return set()
    return {out / shard.url for shard in shards if Path(shard.url).name == shard.url}
