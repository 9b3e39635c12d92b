"""Annotation files in COCO's JSON format, checked and sorted by image."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spml_dist.data.recipes.archives import UNPACK_AGAIN, read_json
from spml_dist.errors import DataError

Entry = dict[str, Any]


@dataclass(frozen=True)
class CocoFile:
    """What a file of annotations says, by image id (the image's file name without its suffix)."""

    path: Path
    files: dict[str, str] = field(repr=False)
    """file name of each image, in the order of their ids"""
    entries: dict[str, list[Entry]] = field(repr=False)
    """annotations of each image; none for an image without"""
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
    Raises DataError, with the remedy (where the file comes from), for one that is missing, damaged or other;
    for two images of one image id, and for categories without a name.
    """
    content = read_json(path, remedy)
    missing = [key for key in ("images", "annotations", "categories") if key not in content]
    if missing:
        raise DataError(f"{path}: holds no {', '.join(missing)}", ", ".join(content), remedy)
    try:
        id_of, files = _images(path, content["images"])
        categories = _categories(path, content["categories"])
        entries = defaultdict(list)
        for entry in content["annotations"]:
            entries[id_of[entry["image_id"]]].append(entry)
        _require_keys(path, content["annotations"], needs, remedy)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not in COCO's format", repr(error), UNPACK_AGAIN) from error
    return CocoFile(path, files, dict(entries), categories)


def _require_keys(path: Path, entries: list[Entry], needs: tuple[str, ...], remedy: str) -> None:
    for entry in entries:
        missing = [key for key in needs if key not in entry]
        if missing:
            raise DataError(f"{path}: annotations without {', '.join(missing)}", ", ".join(entry), remedy)
        if "bbox" in needs and not _is_box(entry["bbox"]):
            raise DataError(f"{path}: annotation {entry.get('id')}: bbox", entry["bbox"], UNPACK_AGAIN)
        if "segments_info" in needs and not all(map(_is_segment, entry["segments_info"])):
            source = f"{path}: image {entry['image_id']}: segments_info"
            raise DataError(source, "a segment without id or category_id", UNPACK_AGAIN)
        if not _is_number(entry.get("area", 0)):
            source = f"{path}: annotation {entry.get('id')}: area"
            raise DataError(source, json.dumps(entry["area"]), "write the pixels it covers or leave it out")


def _images(path: Path, images: list[Entry]) -> tuple[dict[int, str], dict[str, str]]:
    """Image ids by the numbers that annotations use, and file names by image id, in that order."""
    id_of: dict[int, str] = {}
    files: dict[str, str] = {}
    for image in sorted(images, key=lambda image: image["id"]):
        number, file = image["id"], image["file_name"]
        image_id = id_of.setdefault(number, Path(file).stem)
        if image_id in files:
            remedy = "rename one, here and as a file: numbers and names without folders must differ"
            raise DataError(f"{path}: two images of one id", f"{files[image_id]} and {file}", remedy)
        files[image_id] = file
    return id_of, files


def _categories(path: Path, categories: list[Entry]) -> tuple[Entry, ...]:
    for category in categories:
        if not isinstance(category.get("name"), str):
            source = f"{path}: category {category['id']}: name"
            raise DataError(source, json.dumps(category), "give every category an id and a name")
    return tuple(sorted(categories, key=lambda category: category["id"]))


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


def _is_segment(segment: Any) -> bool:
    return all(isinstance(segment.get(key), int) for key in ("id", "category_id"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < math.inf
