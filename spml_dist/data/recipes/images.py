"""The `images` recipe: a bare folder of images, at any depth, without labels."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from spml_dist.data.recipes.folder_layout import read_background, read_classes
from spml_dist.data.recipes.image_files import SUFFIXES, find_image
from spml_dist.data.recipes.recipe import Annotation, Recipe
from spml_dist.errors import DataError

LABELS = "none"


def open_images(root: str | Path, split: str = "all", classes: str | Path | None = None) -> Recipe:
    """All images below a folder as one unlabelled split; the id is the path without its suffix.

    split: what to call it. classes: folder with the classes.txt and meta.json of the images' classes, so
    that the pack goes with others of those classes; None = the pack has no classes.
    Raises DataError for a folder without images and for two images of one id.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", None, "give a folder of images")
    names = () if classes is None else read_classes(Path(classes))
    background = None if classes is None else read_background(Path(classes), names)
    return Recipe(
        name=root.resolve().name,
        split=split,
        labels=LABELS,
        classes=names,
        background=background,
        ids=_ids(root),
        image=partial(find_image, root),
        annotation=_nothing,
    )


def _nothing(image_id: str, shape: tuple[int, int]) -> Annotation:
    return Annotation()


def _ids(root: Path) -> tuple[str, ...]:
    found: dict[str, Path] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(folder, name) for name in files if not name.startswith(".")):
            if path.suffix not in SUFFIXES:
                continue
            image_id = path.relative_to(root).with_suffix("").as_posix()
            if image_id in found:
                other = found[image_id].name
                raise DataError(f"{path}: two images of one id", f"{other} beside it", "rename one of them")
            found[image_id] = path
    if not found:
        raise DataError(f"{root}: no image in it", None, f"images end in {', '.join(SUFFIXES)}")
    return tuple(sorted(found))
