"""How a folder describes itself: classes.txt, meta.json and the split files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from spml_dist.data.format.keys import repeated, same_letters, spellings
from spml_dist.data.recipes.image_files import SUFFIXES
from spml_dist.errors import DataError
from spml_dist.files.text import read_json, read_lines
from spml_dist.records import IGNORED, UNLABELLED

CLASSES = "classes.txt"
META = "meta.json"
_ID = re.compile(r"[0-9]{1,9}")


def read_classes(root: Path) -> tuple[str, ...]:
    """[K] names by class id. Raises DataError for gaps, repeated ids or names, and more than 254 classes."""
    path = root / CLASSES
    names: dict[int, str] = {}
    known: set[str] = set()
    for number, line in enumerate(_lines(path), start=1):
        identity, name = (*line.split(None, 1), "")[:2]
        if not _ID.fullmatch(identity) or not name:
            raise DataError(f"{path}, line {number}: not a class", repr(line), 'write "ID name"')
        if int(identity) in names or same_letters(name) in known:
            raise DataError(
                f"{path}, line {number}: a class is there twice", line, "give each one id and one name"
            )
        names[int(identity)] = name
        known.add(same_letters(name))
    gaps = [number for number in range(len(names)) if number not in names]
    if gaps or not 0 < len(names) <= UNLABELLED:
        problem = f"no {gaps[0]} among {len(names)} classes" if gaps else f"{len(names)} classes"
        raise DataError(
            f"{path}: ids are not 0..K-1", problem, f"number 1 to {UNLABELLED} classes from 0 without gaps"
        )
    return tuple(names[identity] for identity in range(len(names)))


def read_background(root: Path, classes: tuple[str, ...]) -> int | None:
    """The background's class id, or None. Raises DataError if meta.json contradicts classes.txt."""
    path = root / META
    meta = read_json(path, 'write {"background": ID} or {"background": null}')
    if not isinstance(meta, dict) or "background" not in meta:
        raise DataError(
            f"{path}: does not say which class is the background", None, 'add "background": ID or null'
        )
    if "classes" in meta and not _are(meta["classes"], classes):
        raise DataError(f"{path}: classes differ from {CLASSES}", meta["classes"], "make the two agree")
    if meta.get("ignore", IGNORED) not in (IGNORED, None):
        raise DataError(f"{path}: ignore", meta["ignore"], f"write pixels to ignore as {IGNORED}")
    background = meta["background"]
    if background is not None and not (type(background) is int and 0 <= background < len(classes)):
        raise DataError(f"{path}: background", background, f"use null or a class id in 0..{len(classes) - 1}")
    return background


def _are(listed: object, classes: tuple[str, ...]) -> bool:
    """Whether a list of meta.json is the classes; names of digits may stand there as numbers."""
    return isinstance(listed, list) and tuple(map(str, listed)) == classes


def read_split(root: Path, split: str) -> tuple[str, ...]:
    """The image ids of SPLIT.txt, in order.

    Raises DataError if it is missing or empty, and for an id that is repeated, a path or a file's name.
    """
    path = root / f"{split}.txt"
    if path not in _texts(root):
        splits = ", ".join(sorted(_splits(root)))
        remedy = f"splits here: {splits}" if splits else "list image ids there, one a line"
        raise DataError(f"{path}: no such split", split, remedy)
    ids = tuple(_lines(path))
    if not ids:
        raise DataError(f"{path}: the split is empty", None, "list image ids, one a line")
    if twice := repeated(ids):
        raise DataError(f"{path}: an image id is there twice", twice, "list every image once")
    for image_id in ids:
        _require_id(path, root, image_id)
    return ids


def read_ids(root: Path) -> set[str]:
    """The image ids of all splits: of the lists that name an image of the folder at least."""
    return {image_id for ids in _splits(root).values() for image_id in ids}


def _require_id(path: Path, root: Path, image_id: str) -> None:
    # By another way to its image, an image would have none of the annotations that its id has.
    if any(part in ("", ".", "..") for part in image_id.split("/")):
        remedy = f"write ids below {root / 'images'}, such as 0001 or day/0001"
        raise DataError(f"{path}: a path is no image id", image_id, remedy)
    below = image_id.replace("\\", "/")
    if below != image_id and _is_image(root, below) and not _is_image(root, image_id):
        raise DataError(f"{path}: a path is no image id", image_id, "write / between folders, not \\")
    is_file = image_id.endswith(SUFFIXES) and os.path.isfile(root / "images" / image_id)
    if is_file and not _is_image(root, image_id):
        raise DataError(f"{path}: a file's name is no image id", image_id, "write ids without the suffix")


def _splits(root: Path) -> dict[str, list[str]]:
    """The lines of each split by its name. Notes, and texts that are no UTF-8, are none."""
    splits = {}
    for path in _texts(root):
        try:
            lines = _lines(path)
        except DataError:
            continue
        if any(_is_image(root, line) for line in lines):
            splits[path.stem] = lines
    return splits


def _texts(root: Path) -> list[Path]:
    """Hidden files, such as the ._train.txt of some systems, are left out."""
    return [path for path in root.glob("*.txt") if path.name != CLASSES and not path.name.startswith(".")]


def _is_image(root: Path, image_id: str) -> bool:
    # A line of prose may be longer than a name can be; os.path answers for it, where Path raises.
    names = (f"{name}{suffix}" for suffix in SUFFIXES for name in spellings(image_id))
    return any(os.path.isfile(root / "images" / name) for name in names)


def _lines(path: Path) -> list[str]:
    return read_lines(path, "give a folder in the layout of shards/README.md")
