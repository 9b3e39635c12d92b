"""The manifest: what a packed folder holds, and the only thing that a plan of training needs to know."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from spml_dist.errors import DataError
from spml_dist.shards import address

FILE = "manifest.json"
VERSION = 1


@dataclass(frozen=True)
class Shard:
    """One tar."""

    url: str
    """relative to the manifest's folder, or an address of its own"""
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Counts:
    """What the annotations amount to."""

    images_labelled: int
    """images with at least one labelled pixel"""
    images_unlabelled: int
    images_tags_unknown: int
    pixels: int
    """pixels of all images, ignored ones included"""
    pixels_labelled: tuple[int, ...]
    """[K] labelled pixels of each class"""
    images_tagged: tuple[int, ...]
    """[K] images that carry each class as a tag"""


@dataclass(frozen=True)
class Manifest:
    """A packed split of a data set."""

    name: str
    split: str
    labels: str
    """kind of annotation that the labels were made from"""
    classes: tuple[str, ...]
    """[K] names by class id"""
    background: int | None
    """class that is never a tag"""
    samples: int
    counts: Counts
    shards: tuple[Shard, ...]
    version: int = VERSION


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a packed folder, which may be an address (`spml_dist.shards.address`).

    Raises DataError if it is missing, damaged, of another version, out of reach, or names tars at addresses
    that are not read.
    """
    path = address.join(folder, FILE)
    try:
        written = json.loads(_content(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: no such file", None, "give a folder written by `spml-dist pack`") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON", str(error), "pack again") from error
    if not isinstance(written, dict) or written.get("version") != VERSION:
        version = written.get("version") if isinstance(written, dict) else None
        raise DataError(
            f"{path}: version of the shard format",
            version,
            f"this release reads version {VERSION}: pack again",
        )
    values = _values(path, Manifest, written)
    values["counts"] = Counts(**_values(path, Counts, values["counts"]))
    if not isinstance(values["shards"], tuple):
        raise DataError(f"{path}: shards is not a list", values["shards"], "pack again")
    values["shards"] = tuple(Shard(**_values(path, Shard, shard)) for shard in values["shards"])
    for shard in values["shards"]:
        _require_readable(path, shard.url)
    return Manifest(**values)


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write FOLDER/manifest.json, whole or not at all."""
    write_json(Path(folder) / FILE, asdict(manifest))


def write_json(path: str | Path, value: Any) -> None:
    """Write sorted, indented JSON aside and rename it into place. Raises DataError if that cannot be done."""
    path = Path(path)
    aside = path.with_name(f"{path.name}.tmp")
    try:
        aside.write_text(
            json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        os.replace(aside, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written", error.strerror, "choose a writable place") from error


def _content(path: str) -> bytes:
    if address.is_remote(path):
        return address.read(path, address.RETRY_SECONDS)
    return Path(path).read_bytes()


def _require_readable(path: str, url: str) -> None:
    try:
        address.is_remote(url)
    except DataError as error:
        raise DataError(f"{path}: shard {error.what}", error.value, error.remedy) from error


def _values(path: str, record: type, written: object) -> dict[str, Any]:
    if not isinstance(written, dict):
        raise DataError(f"{path}: {record.__name__.lower()} is not an object", written, "pack again")
    names = [field.name for field in fields(record)]
    missing = [name for name in names if name not in written]
    if missing:
        raise DataError(f"{path}: keys are missing", ", ".join(missing), "pack again")
    return {name: tuple(v) if isinstance(v := written[name], list) else v for name in names}
