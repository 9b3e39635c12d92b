"""The `coco` recipe: COCO's instances (80 classes and background) or panoptic segments (133 classes).

Read as the archives unpack: train2017/, val2017/ and annotations/ with instances_SPLIT.json, or with
panoptic_SPLIT.json and the folder panoptic_SPLIT/ of its PNGs (Lin et al., ECCV 2014; Kirillov et al., CVPR
2019).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spml_dist.data.annotations.boxes import box_labels
from spml_dist.data.annotations.coco_masks import decode
from spml_dist.data.recipes.archives import UNPACK_AGAIN, require_folder
from spml_dist.data.recipes.coco_files import CocoFile, Entry, read_coco
from spml_dist.data.recipes.image_files import read_image
from spml_dist.data.recipes.recipe import Annotation, Recipe, classes_in, require_images
from spml_dist.errors import DataError
from spml_dist.records import IGNORED, UNLABELLED, Box

KINDS = ("instances", "panoptic")
LABELS = ("masks", "boxes", "tags")

_FROM = {
    "instances": "unpack annotations_trainval2017.zip there",
    "panoptic": "unpack panoptic_annotations_trainval2017.zip there, and panoptic_SPLIT.zip, which is in it",
}
_NEEDS = {"instances": ("category_id", "bbox", "segmentation"), "panoptic": ("file_name", "segments_info")}


@dataclass(frozen=True)
class Coco:
    """One split, with one kind of labels."""

    root: Path
    split: str
    labels: str
    kind: str
    inside: str
    file: CocoFile = field(repr=False)
    class_of: dict[int, int] = field(repr=False)
    """category id -> class id"""

    @property
    def background(self) -> int | None:
        """What is no instance; panoptic segments cover the image."""
        return 0 if self.kind == "instances" else None

    @property
    def num_classes(self) -> int:
        """Classes, the background included."""
        return len(self.class_of) + (self.background is not None)

    def image(self, image_id: str) -> Path:
        """The image file."""
        return self.root / self.split / self.file.files[image_id]

    def annotation(self, image_id: str, shape: tuple[int, int]) -> Annotation:
        """Labels, tags and mask. An image without an instance is known to show none."""
        mask = self._mask(image_id, shape)
        if self.labels == "masks" or self.kind == "panoptic":
            tags = classes_in(mask, self.num_classes, self.background)
            return Annotation(mask if self.labels == "masks" else None, tags, mask, (self.labels,))
        boxes = self._boxes(image_id)
        tags = tuple(sorted({label for label, *_ in boxes}))
        if self.labels == "tags":
            return Annotation(None, tags, mask, ("tags",))
        return Annotation(box_labels(boxes, shape, 0, self.inside), tags, mask, ("boxes",), boxes)

    def _mask(self, image_id: str, shape: tuple[int, int]) -> np.ndarray:
        if self.kind == "panoptic":
            return self._panoptic(image_id)
        mask = np.zeros(shape, np.uint8)
        # Crowds behind, then large before small: what lies in front is mostly the smaller one.
        for entry in sorted(self.file.of(image_id), key=_depth):
            source = f"{self.file.names(image_id)}, annotation {entry.get('id')}"
            mask[decode(entry["segmentation"], shape, source)] = self._class(image_id, entry)
        return mask

    def _panoptic(self, image_id: str) -> np.ndarray:
        for entry in self.file.of(image_id):
            path = self.root / "annotations" / f"panoptic_{self.split}" / entry["file_name"]
            if not path.is_file():
                raise DataError(f"{path}: no such file", None, _FROM["panoptic"])
            red, green, blue = np.moveaxis(read_image(path).astype(np.int64), -1, 0)
            segments = red + 256 * green + 65536 * blue
            mask = np.full(segments.shape, IGNORED, np.uint8)
            for segment in entry["segments_info"]:
                mask[segments == segment["id"]] = self._class(image_id, segment)
            return mask
        raise DataError(f"{self.file.names(image_id)}: no panoptic annotation", None, UNPACK_AGAIN)

    def _boxes(self, image_id: str) -> tuple[Box, ...]:
        """Of instances; COCO writes left, top, width and height."""
        corners = [(self._class(image_id, entry), *entry["bbox"]) for entry in self.file.of(image_id)]
        return tuple((label, x, y, x + width, y + height) for label, x, y, width, height in corners)

    def _class(self, image_id: str, entry: Entry) -> int:
        category = entry.get("category_id")
        if category not in self.class_of:
            raise DataError(f"{self.file.names(image_id)}: unknown category", category, UNPACK_AGAIN)
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
    file = read_coco(root / "annotations" / f"{kind}_{split}.json", _NEEDS[kind], _FROM[kind])
    first = 1 if kind == "instances" else 0
    class_of = {category["id"]: number for number, category in enumerate(file.categories, start=first)}
    names = tuple(category["name"] for category in file.categories)
    coco = Coco(root, split, labels, kind, boxes, file, class_of)
    ids = tuple(file.files)
    require_images(file.path, ids, coco.image, f"unpack {split}.zip there again")
    classes = ("background", *names) if coco.background == 0 else names
    if len(classes) > UNLABELLED:
        seen = f"{len(names)} categories"
        most = UNLABELLED - len(classes) + len(names)
        raise DataError(f"{file.path}: too many classes for 8 bits", seen, f"keep {most} of them at most")
    name = "coco" if kind == "instances" else "coco-panoptic"
    return Recipe(name, split, labels, classes, coco.background, ids, coco.image, coco.annotation)


def _depth(entry: Entry) -> tuple[bool, float]:
    return not entry.get("iscrowd", 0), -float(entry.get("area", 0))
