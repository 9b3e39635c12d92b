"""The manifest: what a packed folder holds, and the only thing that a plan of training needs to know."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from functools import cache, reduce
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from spml_dist.errors import DataError
from spml_dist.files import address
from spml_dist.files.write import write_json

FILE = "manifest.json"
VERSION = 2
WITH_CONFIDENCE = 3
"""version of a pack whose samples may have confidence.png, which earlier releases cannot read"""
READABLE = (1, 2, 3)
"""versions that this release reads; in version 1 samples have no weak.json and counts are fewer"""

NESTED = ("counts", "shards")
"""keys of a manifest that hold records of their own"""

NAMED = 8
"""images that a manifest names of those it counts"""


@dataclass(frozen=True)
class Shard:
    """One tar."""

    url: str
    """relative to the manifest's folder, or an address of its own"""
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class LabelCounts:
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
    images_unseen: tuple[int, ...] = ()
    """[K] images whose tags promise a class of which no pixel is labelled"""
    images_unlisted: tuple[int, ...] = ()
    """[K] images whose pixels or boxes show a class that their list of tags leaves out"""
    named_unseen: tuple[tuple[str, ...], ...] = ()
    """[K] ids of the first NAMED of `images_unseen`"""
    named_unlisted: tuple[tuple[str, ...], ...] = ()
    """[K] ids of the first NAMED of `images_unlisted`"""
    pixels_contradicted: int = 0
    """pixels of which two kinds of annotation say different classes"""
    kinds: dict[str, int] = field(default_factory=dict)
    """images that have each kind of annotation"""
    images_of_no_kind: int = 0
    """images that nobody annotated"""


def sum_counts(counts: Iterable[LabelCounts]) -> LabelCounts:
    """The counts of parts together; there is at least one."""
    return reduce(_sum, counts)


def _sum(a: LabelCounts, b: LabelCounts) -> LabelCounts:
    values: dict[str, Any] = {}
    for name in (each.name for each in fields(LabelCounts)):
        ours, theirs = getattr(a, name), getattr(b, name)
        if name == "kinds":
            both = sorted({*ours, *theirs})
            values[name] = {kind: ours.get(kind, 0) + theirs.get(kind, 0) for kind in both}
        elif name.startswith("named_"):  # the first of the parts in their order, as one part would name them
            values[name] = tuple((x + y)[:NAMED] for x, y in zip(ours, theirs, strict=True))
        elif isinstance(ours, tuple):
            values[name] = tuple(x + y for x, y in zip(ours, theirs, strict=True))
        else:
            values[name] = ours + theirs
    return LabelCounts(**values)


@dataclass(frozen=True)
class Manifest:
    """A packed split of a data set."""

    name: str
    split: str
    labels: str
    """kinds of annotation that the labels were made from, with commas between; earlier ones decide"""
    classes: tuple[str, ...]
    """[K] names by class id"""
    background: int | None
    """class that is never a tag"""
    samples: int
    counts: LabelCounts
    shards: tuple[Shard, ...]
    regions: str = ""
    """how the over-segmentation was made"""
    rejected: int = 0
    """images that could not be packed; rejected.jsonl says why"""
    version: int = VERSION


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a packed folder, which may be an address (`spml_dist.files.address`).

    Raises DataError if it is missing, damaged, of another version, out of reach, or names tars at addresses
    that are not read.
    """
    path = address.join(folder, FILE)
    values = _values(path, Manifest, _content(path), "manifest")
    values["counts"] = LabelCounts(**_values(path, LabelCounts, values["counts"], "counts"))
    if not isinstance(values["shards"], tuple):
        raise DataError(f"{path}: shards is not a list", values["shards"], "pack again")
    values["shards"] = tuple(Shard(**_values(path, Shard, shard, "shard")) for shard in values["shards"])
    for shard in values["shards"]:
        _require_readable(path, shard.url)
    return Manifest(**values)


def present_counts(folder: str | Path) -> set[str]:
    """Names of those `LabelCounts` that a manifest really holds: earlier releases counted less.

    Raises DataError if it is missing, damaged, of another version or out of reach.
    """
    path = address.join(folder, FILE)
    return set(_values(path, LabelCounts, _content(path).get("counts"), "counts"))


def _content(path: str) -> dict[str, Any]:
    try:
        content = json.loads(_bytes(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: no such file", None, "give a folder written by `spml-dist pack`") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON", str(error), "pack again") from error
    if not isinstance(content, dict) or content.get("version") not in READABLE:
        version = content.get("version") if isinstance(content, dict) else None
        raise DataError(
            f"{path}: version of the shard format",
            version,
            f"this release reads versions {', '.join(map(str, READABLE))}: pack again",
        )
    return content


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Write FOLDER/manifest.json, whole or not at all. Raises RunError if that cannot be done."""
    write_json(Path(folder) / FILE, asdict(manifest))


def _bytes(path: str) -> bytes:
    if address.is_remote(path):
        return address.read(path, address.RETRY_SECONDS)
    return Path(path).read_bytes()


def _require_readable(path: str, url: str) -> None:
    try:
        address.is_remote(url)
    except DataError as error:
        raise DataError(f"{path}: shard {error.what}", error.value, error.remedy) from error


def _values(path: str, record: type, content: object, name: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise DataError(f"{path}: {name} is not an object", content, "pack again")
    required = [each.name for each in fields(record) if _is_required(each)]
    missing = [key for key in required if key not in content]
    if missing:
        raise DataError(f"{path}: keys are missing", ", ".join(missing), "pack again")
    # What is unknown here was added by a later release of the same version, and is passed over.
    names = [each.name for each in fields(record) if each.name in content]
    values = {key: frozen(content[key]) for key in names}
    for key in names:
        _require_type(path, record, key, values[key])
    return values


def _require_type(path: str, record: type, key: str, value: object) -> None:
    if key in NESTED:
        return
    try:
        _adapter(record, key).validate_python(value, strict=True)
    except ValidationError as error:
        raise DataError(f"{path}: {key} is not what a manifest holds", value, "pack again") from error


@cache
def _adapter(record: type, key: str) -> TypeAdapter:
    return TypeAdapter(get_type_hints(record)[key])


def frozen(value: Any) -> Any:
    """What JSON gives back as lists, as the tuples that it was, to any depth."""
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def _is_required(value: Field) -> bool:
    return value.default is MISSING and value.default_factory is MISSING
