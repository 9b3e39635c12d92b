"""Annotation files in COCO's JSON format, checked and sorted by image."""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from spml_dist.data.annotations.image_bounds import require_stated_size
from spml_dist.data.format.keys import is_text, same_letters, spelt
from spml_dist.data.recipes.archives import UNPACK_AGAIN, read_json
from spml_dist.errors import DataError

JsonObject = dict[str, Any]
"""an image, annotation, category or segment of the file"""
Identity = int | float | str
"""what images and categories are known by: a whole number, or a text"""
_LONGEST_ID = 40
"""letters of an id that a line shows"""


@dataclass(frozen=True)
class CocoFile:
    """The content of a file of annotations, by image id: the image's file name without folders and suffix.

    Where two images would have one id so, the ids of all keep the folders.
    """

    path: Path
    files: dict[str, str] = field(repr=False)
    """file name of each image, in the order of their ids"""
    sizes: dict[str, tuple[int, int]] = field(repr=False)
    """(H, W) of the images whose size the file states"""
    entries: dict[str, list[JsonObject]] = field(repr=False)
    """annotations of each image; none for an image without"""
    categories: dict[Identity, str] = field(repr=False)
    """names by ascending id"""

    def of(self, image_id: str) -> list[JsonObject]:
        """The annotations of an image."""
        return self.entries.get(image_id, [])

    def names(self, image_id: str, entry: JsonObject | None = None) -> str:
        """File, image and annotation, for errors."""
        return f"{self.path}, image {image_id}" + ("" if entry is None else f", annotation {id_text(entry)}")

    def require_size(self, image_id: str, shape: tuple[int, int]) -> None:
        """Raise OutsideImageError if the file states another size of the image than (H, W)."""
        require_stated_size(self.sizes.get(image_id), shape, self.names(image_id))


def id_text(entry: JsonObject, key: str = "id") -> str:
    """An id as the file writes it, whatever it is, for errors."""
    text = json.dumps(entry.get(key))
    return text if len(text) <= _LONGEST_ID else f"{text[: _LONGEST_ID - 3]}..."


def read_coco(path: Path, folder: Path, needs: Sequence[str], remedy: str) -> CocoFile:
    """Read a file of annotations.

    folder: where the images lie. needs: keys that every annotation must have; a file of another kind
    (captions, say) lacks them. Raises DataError, with the remedy (where the file comes from), for one that is
    missing, damaged or other; for two images of one id, annotations of images that are not listed, and
    categories without a name or of one id or name.
    """
    content = read_json(path, remedy)
    missing = [key for key in ("images", "annotations", "categories") if key not in content]
    if missing:
        raise DataError(f"{path}: holds no {', '.join(missing)}", ", ".join(content), remedy)
    images, annotations, categories = (
        _objects(path, key, content[key]) for key in ("images", "annotations", "categories")
    )
    id_of, files = _images(path, folder, images)
    _require_listed(path, annotations, id_of)
    _require_keys(path, annotations, needs, remedy)
    entries = defaultdict(list)
    for entry in annotations:
        entries[id_of[entry["image_id"]]].append(entry)
    sizes = {id_of[image["id"]]: size for image in images if (size := _size(path, image))}
    return CocoFile(path, files, sizes, dict(entries), _categories(path, categories))


def _objects(path: Path, key: str, value: Any) -> list[JsonObject]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise DataError(f"{path}: not in COCO's format: {key} are no list of objects", None, UNPACK_AGAIN)
    return value


def _images(path: Path, folder: Path, images: list[JsonObject]) -> tuple[dict[Identity, str], dict[str, str]]:
    """Image ids by what annotations know them by, and file names by image id, in that order."""
    files: dict[Identity, str] = {}
    for image in images:
        number = _identity(path, "image", image)
        file = image.get("file_name")
        if not isinstance(file, str) or not PurePosixPath(file).name or not is_text(file):
            raise DataError(f"{path}: image {id_text(image)}: file_name", json.dumps(file), "name its image")
        if number in files:
            both = f"{files[number]} and {file}"
            remedy = "list it once" if files[number] == file else "give every image a number of its own"
            raise DataError(f"{path}: image {id_text(image)}: two images of one id", both, remedy)
        files[number] = file
    files = {number: _name_on_disk(folder, files[number]) for number in sorted(files, key=_order)}
    # Short ids where they differ: with the folders they would change when a data set is moved into one.
    ids = {number: PurePosixPath(file).stem for number, file in files.items()}
    if len(set(ids.values())) < len(ids):
        ids = {number: str(PurePosixPath(file).with_suffix("")) for number, file in files.items()}
    by_id: dict[str, str] = {}
    for number, image_id in ids.items():
        if image_id in by_id:
            both = f"{by_id[image_id]} and {files[number]}"
            remedy = "rename one, here and as a file, or list it once: names without suffixes must differ"
            raise DataError(f"{path}: two images of one id", both, remedy)
        by_id[image_id] = files[number]
    return ids, by_id


def _name_on_disk(folder: Path, file: str) -> str:
    """The file's name as it is there: in another spelling, or below folders that Windows writes with \\."""
    if file.isascii() and "\\" not in file:
        return file
    for name in (file, file.replace("\\", "/")):
        if os.path.isfile(path := spelt(folder, name)):
            return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else name
    return file.replace("\\", "/")


def _size(path: Path, image: JsonObject) -> tuple[int, int] | None:
    """(H, W), None where the file does not state it, by 0 or null as some tools write it."""
    height, width = image.get("height"), image.get("width")
    for side in (height, width):
        if side is not None and not (_is_number(side) and side >= 0 and side == int(side)):
            source = f"{path}: image {id_text(image)}: width and height"
            raise DataError(source, json.dumps(side), "write pixels, or leave them out")
    return (int(height), int(width)) if height and width else None


def _require_listed(path: Path, annotations: list[JsonObject], id_of: dict[Identity, str]) -> None:
    # Hundreds of thousands of annotations: whole numbers, which nearly all have, pass without a call.
    for entry in annotations:
        if type(entry.get("image_id")) is not int:
            _identity(path, f"annotation {id_text(entry)}", entry, "image_id")
    strange = [entry for entry in annotations if entry["image_id"] not in id_of]
    if not strange:
        return
    first = strange[0]
    # "17", 17 and "000017" are likely meant to be one: the other spelling, if there is one, is named.
    known = next((each for each in id_of if _digits(each) == _digits(first["image_id"])), None)
    meant = "" if known is None else f" images has {json.dumps(known)}: write both alike, or"
    image = id_text(first, "image_id")
    raise DataError(
        f"{path}: annotation {id_text(first)} is of image {image}, which images does not list",
        f"{len(strange)} such of {len(annotations)} annotations",
        f"{meant} list the image, or take its annotations out".strip(),
    )


def _require_keys(path: Path, entries: list[JsonObject], needs: Sequence[str], remedy: str) -> None:
    for entry in entries:
        missing = [key for key in needs if key not in entry]
        if missing:
            raise DataError(f"{path}: annotations without {', '.join(missing)}", ", ".join(entry), remedy)
        if "segments_info" in needs:
            _require_segments(f"{path}: image {id_text(entry, 'image_id')}", entry)
        if "bbox" in needs and not _is_box(entry["bbox"]):
            raise _unusable(path, entry, "bbox", "write [left, top, width, height] in pixels")
        if not _is_number(entry.get("area") or 0):
            raise _unusable(path, entry, "area", "write the pixels it covers or leave it out")
        if not isinstance(entry.get("iscrowd") or 0, int):
            raise _unusable(path, entry, "iscrowd", "write 0 or 1")


def _unusable(path: Path, entry: JsonObject, key: str, remedy: str) -> DataError:
    return DataError(f"{path}: annotation {id_text(entry)}: {key}", json.dumps(entry[key]), remedy)


def _require_segments(source: str, entry: JsonObject) -> None:
    segments = entry["segments_info"]
    if not isinstance(segments, list) or not all(map(_is_segment, segments)):
        what = "a segment without id or category_id"
        raise DataError(f"{source}: segments_info", what, UNPACK_AGAIN)
    twice = [number for number, count in Counter(each["id"] for each in segments).items() if count > 1]
    if twice:
        raise DataError(f"{source}: a segment is there twice", twice[0], "number every segment of its own")
    if not isinstance(entry["file_name"], str):
        raise DataError(f"{source}: file_name", json.dumps(entry["file_name"]), "name its PNG")


def _categories(path: Path, categories: list[JsonObject]) -> dict[Identity, str]:
    names: dict[Identity, str] = {}
    for category in categories:
        number, name = _identity(path, "category", category), category.get("name")
        text = " ".join(str(name).split()) if type(name) in (str, int) else ""
        if not text or not is_text(text):
            source = f"{path}: category {id_text(category)}: name"
            raise DataError(source, json.dumps(category), "give every category an id and a name")
        if number in names:
            both = f"{id_text(category)} is {names[number]} and {text}"
            remedy = "give each an id of its own, in the annotations too, or list it once"
            raise DataError(f"{path}: a category id is there twice", both, remedy)
        names[number] = text
    spelling = Counter(map(same_letters, names.values()))
    for name in (name for name, count in spelling.items() if count > 1):
        ids = ", ".join(str(number) for number, each in names.items() if same_letters(each) == name)
        remedy = "give each a name of its own, or join them under one id"
        raise DataError(f"{path}: two categories of one name", f"{name}: ids {ids}", remedy)
    return {number: names[number] for number in sorted(names, key=_order)}


def _identity(path: Path, what: str, entry: JsonObject, key: str = "id") -> Identity:
    number = entry.get(key)
    if isinstance(number, str) or (_is_number(number) and number == int(number)):
        return number
    remedy = "give each a whole number or a text"
    raise DataError(f"{path}: not in COCO's format: {key} of {what}", json.dumps(number), remedy)


def _order(number: Identity) -> tuple[bool, Identity]:
    # Numbers before texts: the two cannot be compared with each other.
    return isinstance(number, str), number


def _digits(number: Identity) -> str:
    return str(number).strip().lstrip("0")


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))


def _is_segment(segment: Any) -> bool:
    return isinstance(segment, dict) and all(
        isinstance(segment.get(key), int) for key in ("id", "category_id")
    )


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a number that a float can hold; true and false are none."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max and not math.isnan(value)
