"""What is known of packs before a sample is read: by their manifests and the sizes of their tars."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from spml_dist.data.format.manifest import FILE, Manifest
from spml_dist.errors import DataError
from spml_dist.files import address

COPY = "copy the file again from where it was packed, or pack again"


def require_tars(folder: str | Path, manifest: Manifest) -> None:
    """Raise DataError unless the counts add up and every local tar is there with its size.

    It opens nothing: samples are checked when they are read, remote tars when they are fetched.
    """
    path, total = address.join(folder, FILE), sum(shard.samples for shard in manifest.shards)
    if total != manifest.samples:
        raise DataError(
            f"{path}: not the {manifest.samples} samples that it promises, over its tars", total, "pack again"
        )
    for shard in manifest.shards:
        tar = address.join(folder, shard.url)
        if address.is_remote(tar):
            continue
        try:
            size = os.stat(tar).st_size
        except OSError as error:
            raise DataError(f"{tar}: cannot be read", error.strerror, f"{path} names it: {COPY}") from error
        if size != shard.bytes:
            raise DataError(f"{tar}: not the {shard.bytes} bytes that {path} promises", size, COPY)


def require_same_classes(
    folder: str | Path, manifest: Manifest, other: str | Path, expected: Manifest
) -> None:
    """Raise DataError, naming the first class that differs, unless two packs have the same classes.

    folder, manifest: the pack in question; other, expected: the one that it has to agree with.
    """
    difference = first_difference(
        manifest.classes, manifest.background, expected.classes, expected.background
    )
    if difference:
        raise DataError(
            f"{address.join(folder, FILE)}: classes are not those of {address.join(other, FILE)}",
            difference,
            "pack both splits from one classes.txt and meta.json",
        )


def first_difference(
    ours: Sequence[str], background: int | None, theirs: Sequence[str], their_background: int | None
) -> str | None:
    """The first class in which two lists of classes differ, else their backgrounds, in words; None = they
    agree."""
    pairs = enumerate(zip_longest(ours, theirs))
    differing = [f"{label} is {a}, there {b}" for label, (a, b) in pairs if a != b]
    if differing:
        return differing[0]
    same = background == their_background
    return None if same else f"background is {background}, there {their_background}"
