"""The manifest of a bank's snapshot: plain data, read and written without any rank."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from spml_dist.bank.rows import written
from spml_dist.bank.snapshot_folder import MANIFEST, damaged
from spml_dist.config.method_models import Storage
from spml_dist.errors import RunError
from spml_dist.files.write import replacing

FORMAT = 1


@dataclass(frozen=True)
class SnapshotFile:
    """A file of the snapshot."""

    bytes: NonNegativeInt
    digest: str
    """32 hexadecimal digits: of the set of a partition's rows (`rows.digest`), of an index's bytes"""
    rows: NonNegativeInt


@dataclass(frozen=True)
class SnapshotManifest:
    """What a snapshot holds."""

    shards: PositiveInt
    """partitions of the bank, with and without rows"""
    capacity: PositiveInt
    """rows that the whole bank had room for"""
    dim: PositiveInt
    classes: tuple[str, ...]
    """names, in the order of their numbers"""
    storage: Storage
    """number format of the vectors"""
    step: NonNegativeInt | None
    """step that wrote the newest row, counted from 0; null without rows"""
    world: PositiveInt
    """ranks that wrote it"""
    rows: NonNegativeInt
    images: NonNegativeInt
    digest: str
    """of the set of all rows: the sum of those of the files"""
    files: dict[str, SnapshotFile]
    """of partitions, by name"""
    indexes: dict[str, SnapshotFile]
    """of inverted files, by name"""
    format: int = FORMAT


def read_manifest(folder: Path) -> SnapshotManifest:
    """What a folder says that it holds. Raises RunError if the manifest is missing, damaged or of another
    format."""
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        if not isinstance(content, dict) or "format" not in content:
            raise damaged(path, "it is no manifest of a bank")
        if content["format"] != FORMAT:
            remedy = f"this release reads format {FORMAT}: use the one that wrote it"
            raise RunError(f"{path} is of an unknown format", content["format"], remedy)
        manifest = TypeAdapter(SnapshotManifest).validate_json(text, strict=True)
        files = manifest.files.values()
        whole = sum(file.rows for file in files), sum_of(file.digest for file in files)
        if whole != (manifest.rows, manifest.digest) or (manifest.step is None) != (manifest.rows == 0):
            raise damaged(path, "its files do not add up to the whole")
    except ValidationError as problem:
        first = problem.errors()[0]
        raise damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from problem
    except (OSError, ValueError, OverflowError) as problem:
        raise damaged(path, problem) from problem
    return manifest


def write_manifest(folder: Path, manifest: SnapshotManifest) -> None:
    """Raises OSError."""
    text = json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n"
    with replacing(folder / MANIFEST) as aside:
        aside.write_text(text, encoding="utf-8")


def sum_of(digests: Iterable[str]) -> str:
    """The digest of a union of disjoint sets of rows. Raises ValueError for what is none."""
    halves = [[int(each[:16], 16), int(each[16:], 16)] for each in digests]
    total = np.array(halves, np.uint64).reshape(-1, 2).sum(axis=0, dtype=np.uint64)
    return written(total)
