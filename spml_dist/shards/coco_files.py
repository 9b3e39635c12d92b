"""Annotation files in COCO's JSON format, checked and sorted by image."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spml_dist.errors import DataError
from spml_dist.shards.archives import UNPACK_AGAIN, read_json

Entry = dict[str, Any]


@dataclass(frozen=True)
class CocoFile:
    """What a file of annotations says, by image id (the picture's file name without its suffix)."""

    path: Path
    files: dict[str, str] = field(repr=False)
    """file name of each picture, in the order of their ids"""
    entries: dict[str, list[Entry]] = field(repr=False)
    """annotations of each picture; none for a picture without"""
    categories: tuple[Entry, ...] = field(repr=False)
    """by ascending id"""

    def of(self, image_id: str) -> list[Entry]:
        """The annotations of an image."""
        return self.entries.get(image_id, [])

    def names(self, image_id: str) -> str:
        """File and image, for errors."""
        return f"{self.path}, image {image_id}"


def read_coco(path: Path, needs: tuple[str, ...], remedy: str) -> CocoFile:
    """Read a file of annotations.

    needs: keys that every annotation must have; a file of another kind (captions, say) lacks them.
    Raises DataError, with the remedy (where the file comes from), for one that is missing, damaged or other.
    """
    content = read_json(path, remedy)
    missing = [key for key in ("images", "annotations", "categories") if key not in content]
    if missing:
        raise DataError(f"{path}: holds no {', '.join(missing)}", ", ".join(content), remedy)
    try:
        listed = {image["id"]: image["file_name"] for image in content["images"]}
        id_of = {number: Path(file).stem for number, file in listed.items()}
        files = {id_of[number]: file for number, file in sorted(listed.items())}
        categories = tuple(sorted(content["categories"], key=lambda category: category["id"]))
        entries = defaultdict(list)
        for entry in content["annotations"]:
            entries[id_of[entry["image_id"]]].append(entry)
        _require_keys(path, content["annotations"], needs, remedy)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not in COCO's format", repr(error), UNPACK_AGAIN) from error
    return CocoFile(path, files, dict(entries), categories)


def _require_keys(path: Path, entries: list[Entry], needs: tuple[str, ...], remedy: str) -> None:
    for entry in entries:
        missing = [key for key in needs if key not in entry]
        if missing:
            raise DataError(f"{path}: annotations without {', '.join(missing)}", ", ".join(entry), remedy)
        if "bbox" in needs and not _is_box(entry["bbox"]):
            raise DataError(f"{path}: annotation {entry.get('id')}: bbox", entry["bbox"], UNPACK_AGAIN)


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box)
