"""Kinds of annotation in a folder: masks/, and what stands under weak/, known by its name and its form."""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spml_dist.data.annotations.boxes import box_labels, checked_boxes
from spml_dist.data.annotations.keypoints import HeatMap, heat_labels
from spml_dist.data.annotations.label_maps import holds_ignored_alone, mostly, read_label_map, sparse_labels
from spml_dist.data.annotations.mixture import ImageLabels
from spml_dist.data.annotations.points import checked_points, discs
from spml_dist.data.format.keys import same_letters, spelt
from spml_dist.data.recipes.recipe import classes_in
from spml_dist.errors import DataError
from spml_dist.files.text import read_json
from spml_dist.records import LABELERS

MASKS = "masks"
_LOOKED_AT = 16
_IDS = "write the ids of the classes that the image shows, each once, not 0 or 1 for each class"


@dataclass(frozen=True)
class MarkSettings:
    """How single marks become labelled pixels."""

    point_radius: float = 3
    """of the disc that a point becomes, in pixels"""
    boxes: str = "cam"
    """what labels the inside of boxes: `cam`, `geometry`"""
    heat_maps: tuple[str, ...] = ()
    """kinds of points that are keypoints, besides those whose name begins with `keypoints`"""
    heat: HeatMap = field(default_factory=HeatMap)
    """of keypoints"""


@dataclass(frozen=True)
class Classes:
    """Classes of a folder by their ids."""

    number: int
    background: int | None


EntryReader = Callable[[Any, tuple[int, int], Classes, MarkSettings, str], ImageLabels]
"""reads one image's entry: entry, (H, W), classes, marks, source for errors; raises DataError"""


@dataclass(frozen=True)
class LabelMaps:
    """FOLDER/ID.png of class ids; 255 is ignored in masks/, and in a sparse kind nobody's pixel."""

    folder: Path
    classes: Classes
    sparse: bool

    def has(self, image_id: str) -> bool:
        """Whether the image is annotated."""
        return self._path(image_id).is_file()

    def files(self) -> set[str]:
        """Names below the folder of all its files but hidden ones: those of images are ID.png."""
        paths = (os.path.join(folder, name) for folder, _, names in os.walk(self.folder) for name in names)
        below = (path[len(str(self.folder)) :] for path in paths)
        return {name[1:] for name in below if "/." not in name}

    def read(self, image_id: str, shape: tuple[int, int]) -> ImageLabels:
        """Labels of the file's own size. Only a whole mask tells that an image holds no class.

        Raises DataError for a file that is no map of the classes.
        """
        labels = read_label_map(self._path(image_id), self.classes.number)
        if self.sparse:
            return _sparse(sparse_labels(labels), self.classes)
        shown = classes_in(labels, self.classes.number, self.classes.background)
        return ImageLabels(labels, shown if (labels < self.classes.number).any() else None)

    def doubt(self, name: str, ids: Sequence[str]) -> str | None:
        """What to say of maps of 0 and 255 alone, and of sparse ones in which 0 is everywhere else, by some
        of the images; None = nothing."""
        paths = [path for image_id in ids if os.path.isfile(path := self._path(image_id))]
        some = paths[:: max(1, len(paths) // _LOOKED_AT)]
        if self.classes.number < 2:
            return None
        if self.sparse and mostly(some) == 0:
            sample = f"in the {len(some)} of its {len(paths)} files that were looked at every pixel"
            return f"{name}: {sample} is labelled, most of them 0: is 0 nobody's pixel? write 255 there"
        if not holds_ignored_alone(some, self.classes.background):
            return None
        means = "no label" if self.sparse else "to be ignored"
        sample = f"the {len(some)} of its {len(paths)} files that were looked at hold"
        return f"{name}: {sample} only 0 and 255, which is {means}: is 255 your object? write its class id"

    def _path(self, image_id: str) -> Path:
        return spelt(self.folder, f"{image_id}.png")


@dataclass(frozen=True)
class JsonEntries:
    """weak/KIND.json: an entry for each image by its id, in the form of `same_letters`."""

    path: Path
    classes: Classes
    marks: MarkSettings
    read_entry: EntryReader = field(repr=False)
    entries: dict[str, Any] = field(repr=False)

    def has(self, image_id: str) -> bool:
        """Whether the image is annotated."""
        return same_letters(image_id) in self.entries

    def read(self, image_id: str, shape: tuple[int, int]) -> ImageLabels:
        """The labels of the image's entry. Raises DataError, naming the file and the image."""
        source = f"{self.path}, image {image_id}"
        return self.read_entry(self.entries[same_letters(image_id)], shape, self.classes, self.marks, source)


AnnotationKind = LabelMaps | JsonEntries


def points(
    entry: Any, shape: tuple[int, int], classes: Classes, marks: MarkSettings, source: str
) -> ImageLabels:
    """[[class, x, y], ...]: a disc around each point."""
    return _sparse(discs(entry, shape, marks.point_radius, classes.number, source), classes)


def keypoints(
    entry: Any, shape: tuple[int, int], classes: Classes, marks: MarkSettings, source: str
) -> ImageLabels:
    """[[class, x, y], ...]: a heat map around each keypoint."""
    checked = checked_points(entry, shape, classes.number, source)
    labels = heat_labels(checked, shape, marks.heat, classes.background)
    # A keypoint may be of the background: what its heat labels is marked, the cold rest is only implied.
    hot = heat_labels(checked, shape, marks.heat, None)
    return replace(_sparse(labels, classes), implied=labels != hot)


def boxes(
    entry: Any, shape: tuple[int, int], classes: Classes, marks: MarkSettings, source: str
) -> ImageLabels:
    """[[class, x0, y0, x1, y1], ...]: one for every object; without a box the image shows no class."""
    checked = checked_boxes(entry, shape, classes.number, classes.background, source)
    labels = box_labels(checked, shape, classes.background, marks.boxes)
    shown = tuple(sorted({label for label, *_ in checked}))
    return ImageLabels(labels, shown, boxes=checked, implied=labels == classes.background)


def tags(
    entry: Any, shape: tuple[int, int], classes: Classes, marks: MarkSettings, source: str
) -> ImageLabels:
    """[class, ...]: what the image shows somewhere, without the background; [] says that it shows none."""
    if not isinstance(entry, list):
        raise DataError(f"{source}: not a list of class ids", entry, "write [class, ...]")
    for tag in entry:
        if isinstance(tag, str):
            raise DataError(f"{source}: not a class id", tag, "write ids of classes.txt, not names")
        if isinstance(tag, bool | float):
            raise DataError(f"{source}: a tag is not in classes.txt, a class id", tag, _IDS)
        if type(tag) is not int or not 0 <= tag < classes.number:
            raise DataError(
                f"{source}: a tag is not in classes.txt", tag, f"use ids in 0..{classes.number - 1}"
            )
    if len(set(entry)) < len(entry):
        raise DataError(f"{source}: a tag is there twice", entry, _IDS)
    return ImageLabels(listed=tuple(sorted(set(entry) - {classes.background})))


def require_ids(path: Path, entries: dict[str, Any], classes: Classes) -> None:
    """Raise DataError if all lists of tags have a number for each class: such are flags, not ids.

    Where every list is of ids, two of them do not name the same two classes in either order.
    """
    lists = [entry for entry in entries.values() if isinstance(entry, list) and entry]
    lengths = {len(entry) for entry in lists}
    flags = all(isinstance(tag, bool | int | float) and tag in (0, 1) for entry in lists for tag in entry)
    if len(lengths) == 1 and flags and lengths <= {classes.number, classes.number - 1}:
        (length,) = lengths
        if length > 2 or (length == 2 and len({tuple(entry) for entry in lists}) > 1):
            what = f"{path}: tags are 0 or 1 for each of {length} classes, not class ids"
            raise DataError(what, _first(entries), _IDS)


def _sparse(labels: np.ndarray, classes: Classes) -> ImageLabels:
    """Sparse labels: the background alone does not say that there is nothing else."""
    return ImageLabels(labels, classes_in(labels, classes.number, classes.background) or None)


def open_kind(root: Path, kind: str, classes: Classes, marks: MarkSettings) -> AnnotationKind:
    """The annotations of one kind. A folder weak/KIND/ comes before a file weak/KIND.json.

    Raises DataError, with the kinds that can be packed, if there is no such kind.
    """
    if kind == MASKS and (root / MASKS).is_dir():
        return open_masks(root, classes)
    maps, listed = root / "weak" / kind, root / "weak" / f"{kind}.json"
    if kind in LABELERS:
        verb = "cam infer" if kind == "cam" else "label"
        remedy = f"rename it under {root / 'weak'}: that is the name of what `spml-dist {verb}` labels"
        raise DataError(f"{root}: no kind of annotation can have this name", kind, remedy)
    if not kind.strip(".") or "/" in kind:
        raise DataError(f"{root}: no annotations of this kind", repr(kind), _remedy(root, kind))
    if maps.is_dir():
        return LabelMaps(maps, classes, sparse=True)
    if listed.is_file():
        entries = read_by_image(listed)
        reader = _entry_reader(kind, entries)
        if reader is None:
            raise DataError(
                f"{listed}: not a kind of points, boxes, tags or label maps",
                f"{kind}: {_first(entries)}",
                _remedy(root, kind),
            )
        if reader is tags:
            require_ids(listed, entries, classes)
        reader = keypoints if reader is points and kind in marks.heat_maps else reader
        return JsonEntries(listed, classes, marks, reader, entries)
    raise DataError(f"{root}: no annotations of this kind", kind, _remedy(root, kind))


def open_masks(root: Path, classes: Classes) -> LabelMaps:
    """The whole masks of a folder, which may hold none."""
    return LabelMaps(root / MASKS, classes, sparse=False)


def kinds_of(root: Path) -> list[str]:
    """Names of the kinds in a folder that can be packed."""
    names = {MASKS} if (root / MASKS).is_dir() else set()
    names |= {path.name for path in (root / "weak").glob("*") if path.is_dir()}
    names |= {path.stem for path in (root / "weak").glob("*.json") if _may_be_packed(path)}
    return sorted(names - set(LABELERS))


def _may_be_packed(listed: Path) -> bool:
    try:
        return _entry_reader(listed.stem, read_by_image(listed)) is not None
    except DataError:  # named where the kind is packed
        return True


def read_by_image(path: Path, entry: str = "annotation") -> dict[str, Any]:
    """A JSON object by image id, in the form of `same_letters`.

    Raises DataError for anything else, saying what an entry is.
    """
    remedy = f"write {{image id: {entry}}}"
    entries = read_json(path, remedy)
    if not isinstance(entries, dict):
        raise DataError(f"{path}: not an object", type(entries).__name__, remedy)
    by_letters = {same_letters(image_id): each for image_id, each in entries.items()}
    if len(by_letters) < len(entries):
        twice = next(name for name in entries if name not in by_letters)
        raise DataError(f"{path}: a name is there twice, in two forms of Unicode", twice, "join the two")
    return by_letters


def _entry_reader(kind: str, entries: dict[str, Any]) -> EntryReader | None:
    """What a JSON file holds: tags by its name, points and boxes by its first entry, else by its name."""
    readers = (tags, keypoints, points, boxes)
    named = next((reader for reader in readers if kind.startswith(reader.__name__)), None)
    # The entries themselves decide between points and boxes, for names are free; an empty first entry or one
    # of neither length leaves it to the name, and so does a file that has both.
    listed = [entry for entry in entries.values() if isinstance(entry, list) and entry]
    length = len(listed[0][0]) if listed and isinstance(listed[0][0], list) else 0
    lengths = {len(mark) for entry in listed for mark in entry if isinstance(mark, list)}
    if named is tags or length not in (3, 5) or (named and {3, 5} <= lengths):
        return named
    return boxes if length == 5 else keypoints if named is keypoints else points


def _first(entries: dict[str, Any]) -> str:
    """The first entry that is not empty, shortened."""
    filled = [item for item in entries.items() if item[1]] or entries.items()
    return reprlib.repr(dict(list(filled)[:1]))


def _remedy(root: Path, kind: str) -> str:
    kinds = kinds_of(root)
    if not kinds:
        return "add masks/, weak/KIND/ID.png, weak/KIND.json of points or boxes, or weak/tags.json"
    near = difflib.get_close_matches(kind, kinds, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return f"{meant}can be packed: {', '.join(kinds)}"
