"""The `coco` recipe: COCO's instances (80 classes and background) or panoptic segments (133 classes).

Read as the archives unpack: train2017/, val2017/ and annotations/ with instances_SPLIT.json, or with
panoptic_SPLIT.json and the folder panoptic_SPLIT/ of its PNGs (Lin et al., ECCV 2014; Kirillov et al., CVPR
2019).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from spml_dist.data.annotations.boxes import box_labels, fitted_boxes
from spml_dist.data.annotations.coco_masks import decode, encloses_nothing, outline_fault
from spml_dist.data.format.keys import spelt
from spml_dist.data.recipes.archives import UNPACK_AGAIN, require_folder
from spml_dist.data.recipes.coco_files import CocoFile, Identity, JsonObject, id_text, read_coco
from spml_dist.data.recipes.image_files import read_image
from spml_dist.data.recipes.recipe import Annotation, Recipe, classes_in, require_images
from spml_dist.errors import DataError
from spml_dist.records import IGNORED, UNLABELLED, Box

KINDS = ("instances", "panoptic")
LABELS = ("masks", "boxes", "tags")

_FROM = {
    "instances": "unpack annotations_trainval2017.zip there, or put your own file there under this name",
    "panoptic": "unpack panoptic_annotations_trainval2017.zip there, and panoptic_SPLIT.zip, which is in it",
}
_NEEDS = {
    "masks": ("category_id", "segmentation"),
    "boxes": ("category_id", "bbox"),
    "tags": ("category_id",),
}
"""keys of instances by what is taken of them"""
_OF_PANOPTIC = ("file_name", "segments_info")
_BACKGROUND = "background"


@dataclass(frozen=True)
class Coco:
    """One split, with one kind of labels."""

    root: Path
    split: str
    labels: str
    kind: str
    inside: str
    file: CocoFile = field(repr=False)
    class_of: dict[Identity, int] = field(repr=False)
    """category id -> class id"""
    classes: tuple[str, ...]

    @property
    def background(self) -> int | None:
        """What is no instance; panoptic segments cover the image."""
        return 0 if self.kind == "instances" else None

    def image(self, image_id: str) -> Path:
        """The image file."""
        return self.root / self.split / self.file.files[image_id]

    def annotation(self, image_id: str, shape: tuple[int, int]) -> Annotation:
        """Labels, tags and mask. An image without an instance is known to show none."""
        self.file.require_size(image_id, shape)
        mask: np.ndarray | None
        if self.kind == "panoptic":
            mask = self._panoptic(image_id)
            tags = classes_in(mask, len(self.classes), self.background)
        else:
            mask = self._mask(image_id, shape)
            tags = self._tags(image_id, mask)
        if self.labels == "masks":
            return Annotation(mask, tags, mask, ("masks",))
        if self.labels == "tags":
            return Annotation(None, tags, mask, ("tags",))
        boxes = self._boxes(image_id, shape)
        return Annotation(box_labels(boxes, shape, 0, self.inside), tags, mask, ("boxes",), boxes)

    def _tags(self, image_id: str, mask: np.ndarray | None) -> tuple[int, ...]:
        """Classes of all instances; of masks those that show, and those whose outline encloses no pixel."""
        entries = self.file.of(image_id)
        if self.labels != "masks":
            return tuple(sorted({self._class(image_id, entry) for entry in entries} - {0}))
        assert mask is not None  # only boxes and tags do without
        hidden = {self._class(image_id, each) for each in entries if encloses_nothing(each["segmentation"])}
        return tuple(sorted(hidden.union(classes_in(mask, len(self.classes), 0)) - {0}))

    def _mask(self, image_id: str, shape: tuple[int, int]) -> np.ndarray | None:
        """[H, W] uint8; None, beside boxes and tags, where an instance has no outline."""
        entries = self.file.of(image_id)
        if self.labels != "masks" and any(outline_fault(entry.get("segmentation")) for entry in entries):
            return None
        mask = np.zeros(shape, np.uint8)
        # Crowds behind, then large before small: what lies in front is mostly the smaller one.
        for entry in sorted(entries, key=partial(self._depth, image_id, shape)):
            mask[self._covered(image_id, shape, entry)] = self._class(image_id, entry)
        return mask

    def _depth(self, image_id: str, shape: tuple[int, int], entry: JsonObject) -> tuple[bool, float]:
        area = entry.get("area") or np.count_nonzero(self._covered(image_id, shape, entry))  # many write none
        return not entry.get("iscrowd"), -float(area)

    def _covered(self, image_id: str, shape: tuple[int, int], entry: JsonObject) -> np.ndarray:
        return decode(entry["segmentation"], shape, self.file.names(image_id, entry))

    def _panoptic(self, image_id: str) -> np.ndarray:
        entries = self.file.of(image_id)
        if len(entries) > 1:
            count = f"{len(entries)} annotations"
            raise DataError(f"{self.file.names(image_id)}: annotated twice", count, "keep one of them")
        for entry in entries:
            path = spelt(self.root / "annotations" / f"panoptic_{self.split}", entry["file_name"])
            if not os.path.isfile(path):
                raise DataError(f"{path}: no such file", None, _FROM["panoptic"])
            # COCO writes the number of a segment into the three channels, the lowest byte first.
            red, green, blue = np.moveaxis(read_image(path).astype(np.int64), -1, 0)
            segments = red + 256 * green + 65536 * blue
            mask = np.full(segments.shape, IGNORED, np.uint8)
            for segment in entry["segments_info"]:
                mask[segments == segment["id"]] = self._class(image_id, segment)
            return mask
        raise DataError(f"{self.file.names(image_id)}: no panoptic annotation", None, UNPACK_AGAIN)

    def _boxes(self, image_id: str, shape: tuple[int, int]) -> tuple[Box, ...]:
        """Of instances; COCO writes left, top, width and height."""
        entries = self.file.of(image_id)
        listed = [(self._class(image_id, entry), *entry["bbox"]) for entry in entries]
        for label, *box in listed:
            if label == self.background:
                source = f"{self.file.names(image_id)}: a box of the background"
                raise DataError(source, box, "draw boxes around objects only")
        corners = [(label, x, y, x + width, y + height) for label, x, y, width, height in listed]
        boxes = [entry["bbox"] for entry in entries]
        return fitted_boxes(corners, shape, self.file.names(image_id), "[left, top, width, height]", boxes)

    def _class(self, image_id: str, entry: JsonObject) -> int:
        category = entry.get("category_id")
        if isinstance(category, list | dict) or category not in self.class_of:
            known = ", ".join(json.dumps(number) for number in list(self.class_of)[:3])
            raise DataError(
                f"{self.file.names(image_id)}: unknown category",
                json.dumps(category),
                f"annotation {id_text(entry)}: use the ids that categories has: {known}, ...",
            )
        return self.class_of[category]


def open_coco(
    root: str | Path, split: str, labels: str, kind: str = "instances", boxes: str = "cam"
) -> Recipe:
    """A split of COCO (train2017, val2017) with one kind of labels, from instances or panoptic segments.

    Boxes and tags of instances come from their bounding boxes and categories. boxes: what labels their
    inside, `cam` or `geometry`. Raises DataError for an unknown kind, for files that are missing or damaged,
    and for a file that names missing images.
    """
    root = Path(root)
    if labels not in LABELS or kind not in KINDS:
        known = f"labels: {', '.join(LABELS)}; annotations: {', '.join(KINDS)}"
        raise DataError(f"{root}: no labels of this kind", f"{labels} of {kind}", known)
    if (kind, labels) == ("panoptic", "boxes"):
        remedy = "take boxes of instances: those of stuff would cover whole images"
        raise DataError(f"{root}: no labels of this kind", "boxes of panoptic segments", remedy)
    require_folder(root, split, f"unpack {split}.zip there")
    needs = _OF_PANOPTIC if kind == "panoptic" else _NEEDS[labels]
    file = read_coco(root / "annotations" / f"{kind}_{split}.json", root / split, needs, _FROM[kind])
    class_of, classes = _classes(file, kind)
    coco = Coco(root, split, labels, kind, boxes, file, class_of, classes)
    ids = tuple(file.files)
    put = f"unpack {split}.zip there again, or put the images there under the names that file_name has"
    require_images(file.path, ids, coco.image, put)
    name = "coco" if kind == "instances" else "coco-panoptic"
    return Recipe(
        name,
        split,
        labels,
        classes,
        coco.background,
        ids,
        coco.image,
        coco.annotation,
        notes=() if kind == "panoptic" else tuple(_outlines(file, labels)),
    )


def _classes(file: CocoFile, kind: str) -> tuple[dict[Identity, int], tuple[str, ...]]:
    """Class ids by category id, and names: of instances after the background, whoever lists it."""
    own = {} if kind == "panoptic" else {n: 0 for n, name in file.categories.items() if _is_background(name)}
    names = {number: name for number, name in file.categories.items() if number not in own}
    first = () if kind == "panoptic" else (_BACKGROUND,)
    if len(first) + len(names) > UNLABELLED:
        count, most = f"{len(names)} categories", UNLABELLED - len(first)
        raise DataError(f"{file.path}: too many classes for 8 bits", count, f"keep {most} of them at most")
    if len(own) > 1:
        ids = ", ".join(map(str, own))
        raise DataError(f"{file.path}: two categories of one name", f"background: ids {ids}", "keep one")
    return own | {number: label for label, number in enumerate(names, start=len(first))}, (
        *first,
        *names.values(),
    )


def _is_background(name: str) -> bool:
    """Whether a category is what the recipe calls so: tools write Background and _background_ too."""
    return name.strip("_ ").casefold() == _BACKGROUND


def _outlines(file: CocoFile, labels: str) -> Iterator[str]:
    """Notes on instances without an outline, which masks cannot show."""
    faults, empty = [], []
    for image_id, entries in file.entries.items():
        for entry in entries:
            if fault := outline_fault(entry.get("segmentation")):
                faults.append((image_id, entry, fault))
            elif encloses_nothing(entry["segmentation"]):
                empty.append((image_id, entry))
    total = sum(map(len, file.entries.values()))
    if faults and labels != "masks":
        image_id, entry, fault = faults[0]
        images = len({image_id for image_id, *_ in faults})
        yield (
            f"{file.path.name}: {len(faults)} of its {total} annotations have no outline (annotation "
            f"{id_text(entry)} of {image_id}: {fault}); no whole mask goes along for their {images} images"
        )
    if empty:
        image_id, entry = empty[0]
        yield (
            f"{file.path.name}: {len(empty)} of its {total} annotations are polygons of fewer than three "
            f"points and cover no pixel of the masks, e.g. annotation {id_text(entry)} of {image_id}"
        )
