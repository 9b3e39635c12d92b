"""Kinds of annotation in a folder: masks/, and what stands under weak/, known by its name and its form."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spml_dist.annotations.label_maps import read_label_map, seeds
from spml_dist.annotations.points import discs
from spml_dist.errors import DataError

MASKS = "masks"


@dataclass(frozen=True)
class LabelMaps:
    """FOLDER/ID.png of class ids; 255 is ignored in masks/, and in a sparse kind nobody's pixel."""

    folder: Path
    num_classes: int
    sparse: bool

    def has(self, image_id: str) -> bool:
        """Whether the image is annotated."""
        return self._path(image_id).is_file()

    def semantic(self, image_id: str, shape: tuple[int, int]) -> np.ndarray:
        """[H, W] uint8 of the file's own size: 0..K-1, or 254 (sparse) or 255 (masks)."""
        labels = read_label_map(self._path(image_id), self.num_classes)
        return seeds(labels) if self.sparse else labels

    def _path(self, image_id: str) -> Path:
        return self.folder / f"{image_id}.png"


@dataclass(frozen=True)
class Points:
    """weak/KIND.json of [class, x, y]: discs around the points."""

    path: Path
    num_classes: int
    radius: float
    entries: dict[str, Any] = field(repr=False)

    def has(self, image_id: str) -> bool:
        """Whether the image is annotated."""
        return image_id in self.entries

    def semantic(self, image_id: str, shape: tuple[int, int]) -> np.ndarray:
        """[H, W] = shape, uint8: 0..K-1, or 254."""
        source = f"{self.path}, image {image_id}"
        return discs(self.entries[image_id], shape, self.radius, self.num_classes, source)


Kind = LabelMaps | Points


def open_kind(root: Path, kind: str, num_classes: int, radius: float) -> Kind:
    """The annotations of one kind. A folder weak/KIND/ comes before a file weak/KIND.json.

    Raises DataError, with the kinds that can be packed, if there is no such kind.
    """
    if kind == MASKS and (root / MASKS).is_dir():
        return open_masks(root, num_classes)
    maps, listed = root / "weak" / kind, root / "weak" / f"{kind}.json"
    if not kind.strip(".") or "/" in kind:
        raise DataError(f"{root}: no annotations of this kind", repr(kind), _remedy(root, kind))
    if maps.is_dir():
        return LabelMaps(maps, num_classes, sparse=True)
    if listed.is_file():
        entries = read_by_image(listed)
        if _are_points(entries):
            return Points(listed, num_classes, radius, entries)
        raise DataError(f"{listed}: not a kind of points or label maps", kind, _remedy(root, kind))
    raise DataError(f"{root}: no annotations of this kind", kind, _remedy(root, kind))


def open_masks(root: Path, num_classes: int) -> LabelMaps:
    """The whole masks of a folder, which may hold none."""
    return LabelMaps(root / MASKS, num_classes, sparse=False)


def kinds_of(root: Path) -> list[str]:
    """Names of the kinds in a folder that can be packed."""
    found = {MASKS} if (root / MASKS).is_dir() else set()
    found |= {path.name for path in (root / "weak").glob("*") if path.is_dir()}
    found |= {path.stem for path in (root / "weak").glob("*.json") if _are_points(read_by_image(path))}
    return sorted(found)


def read_by_image(path: Path) -> dict[str, Any]:
    """A JSON object by image id. Raises DataError for anything else."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as JSON", str(error), "write {image id: annotation}"
        ) from error
    if not isinstance(entries, dict):
        raise DataError(f"{path}: not an object", type(entries).__name__, "write {image id: annotation}")
    return entries


def _are_points(entries: dict[str, Any]) -> bool:
    listed = [entry for entry in entries.values() if isinstance(entry, list) and entry]
    return bool(listed) and isinstance(listed[0][0], list) and len(listed[0][0]) == 3


def _remedy(root: Path, kind: str) -> str:
    kinds = kinds_of(root)
    if not kinds:
        return "add masks/, weak/KIND/ID.png or weak/KIND.json of [class, x, y]"
    near = difflib.get_close_matches(kind, kinds, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{meant}can be packed: {', '.join(kinds)}"
