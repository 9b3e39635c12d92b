"""The `images` recipe: a bare folder of images, at any depth, without labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from spml_dist.data.recipes.folder_layout import read_background, read_classes
from spml_dist.data.recipes.image_files import LOWER_SUFFIXES, SUFFIXES
from spml_dist.data.recipes.recipe import Annotation, Recipe
from spml_dist.errors import DataError

LABELS = "none"


def open_images(root: str | Path, split: str = "all", classes: str | Path | None = None) -> Recipe:
    """All images below a folder as one unlabelled split; the id is the path without its suffix.

    Links to folders are followed, once. The notes count and name what is left out.

    split: what to call it. classes: folder with the classes.txt and meta.json of the images' classes, so
    that the pack goes with others of those classes; None = the pack has no classes.
    Raises DataError for a folder without images and for two images of one id.
    """
    root = Path(root)
    files, notes = images_below(root)
    by_id = _by_id(root, files)
    names = () if classes is None else read_classes(Path(classes))
    background = None if classes is None else read_background(Path(classes), names)
    return Recipe(
        name=root.resolve().name,
        split=split,
        labels=LABELS,
        classes=names,
        background=background,
        ids=tuple(by_id),
        image=partial(_path, {image_id: str(path) for image_id, path in by_id.items()}),
        annotation=_nothing,
        notes=notes,
    )


def images_below(root: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The image files below a folder, in the order of their ids, and the notes; DataError as `open_images`,
    but for images of one id."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", None, "give a folder of images")
    tree = _walk(root)
    notes = tuple(_notes(tree))
    if not tree.images:
        remedy = "; ".join((f"images end in {', '.join(LOWER_SUFFIXES)}", *notes))
        raise DataError(f"{root}: no image in it", None, remedy)
    return sorted(tree.images, key=lambda path: (_id(root, path), path.name)), notes


def _id(root: Path, path: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()


def _nothing(image_id: str, shape: tuple[int, int]) -> Annotation:
    return Annotation()


def _path(by_id: dict[str, str], image_id: str) -> Path:
    return Path(by_id[image_id])


def _by_id(root: Path, files: list[Path]) -> dict[str, Path]:
    """The files by their image ids."""
    by_id: dict[str, Path] = {}
    for path in files:
        image_id = _id(root, path)
        if image_id in by_id:
            other = by_id[image_id].name
            raise DataError(f"{path}: two images of one id", f"{other} beside it", "rename one of them")
        by_id[image_id] = path
    return by_id


@dataclass(frozen=True)
class _Tree:
    """What lies below a folder, by what becomes of it. Paths are in a fixed order."""

    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    """files of other suffixes, and links that lead nowhere"""
    hidden: list[Path] = field(default_factory=list)
    again: list[Path] = field(default_factory=list)
    """links to folders whose images are there already, and those that would never end"""
    closed: list[Path] = field(default_factory=list)
    """folders that cannot be read"""


def _walk(root: Path) -> _Tree:
    """Everything below a folder. Links are followed after all real folders, no folder is entered twice."""
    tree, entered = _Tree(), set[tuple[int, int]]()
    links: list[Path] = []

    def enter(folder: Path) -> None:
        about = folder.stat()
        if (about.st_dev, about.st_ino) in entered:
            tree.again.append(folder)
            return
        entered.add((about.st_dev, about.st_ino))
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            tree.closed.append(folder)
            return
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                tree.hidden.append(path)
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(path)
            elif path.suffix.lower() in SUFFIXES and entry.is_file():
                tree.images.append(path)
            else:
                tree.others.append(path)

    folders = [root]
    # Real folders first: of a folder that a link leads to as well, the image ids follow the real path.
    while folders or links:
        enter((folders or links).pop(0))
    return tree


def _notes(tree: _Tree) -> Iterator[str]:
    """What is left out, counted and named."""
    if tree.others:
        counts = Counter(path.suffix.lower() or "without a suffix" for path in tree.others)
        kinds = ", ".join(f"{number} {suffix}" for suffix, number in sorted(counts.items()))
        ends = f"images end in {', '.join(LOWER_SUFFIXES)}"
        yield f"other files are left out: {kinds} ({_some(tree.others)}); {ends}"
    if tree.hidden:
        yield f"hidden files and folders are left out: {len(tree.hidden)} ({_some(tree.hidden)})"
    if tree.again:
        yield f"links lead to folders that are packed already: {len(tree.again)} ({_some(tree.again)})"
    if tree.closed:
        yield f"folders that cannot be read are left out: {len(tree.closed)} ({_some(tree.closed)})"


def _some(paths: list[Path]) -> str:
    return ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
