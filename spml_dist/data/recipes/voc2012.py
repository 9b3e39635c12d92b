"""The `voc2012` recipe: PASCAL VOC 2012 with the masks of SBD, and the weak labels published for it.

Read as the archives unpack: VOCdevkit/VOC2012 (VOCtrainval_11-May-2012.tar), benchmark_RELEASE/dataset (SBD,
benchmark.tgz; Hariharan et al., ICCV 2011), scribble_annotation/pascal_2012 (ScribbleSup; Lin et al., CVPR
2016) and whats_the_point/data (What's the Point; Bearman et al., ECCV 2016).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spml_dist.data.annotations.boxes import box_labels
from spml_dist.data.annotations.label_maps import read_label_map
from spml_dist.data.annotations.points import discs
from spml_dist.data.annotations.scribbles import draw_strokes, shorten_stroke
from spml_dist.data.format.keys import spelt
from spml_dist.data.recipes import voc_files
from spml_dist.data.recipes.annotation_kinds import Classes, LabelMaps
from spml_dist.data.recipes.archives import read_ids, read_json, require_folder
from spml_dist.data.recipes.recipe import Annotation, Recipe, classes_in, require_images
from spml_dist.errors import DataError

CLASSES = voc_files.CLASSES
BACKGROUND = 0

SPLITS = ("train", "val", "trainval", "train_aug", "test")
AUGMENTED = 10_582
"""images of train_aug, made from the whole archives"""

STROKES = {"scribbles": 1.0, "scribbles80": 0.8, "scribbles50": 0.5, "scribbles30": 0.3, "points": 0.0}
"""share of each scribble's length that these labels keep; points are the middles of the scribbles"""
LABELS = ("masks", *STROKES, "clicks", "boxes", "tags")

_DEVKIT, _SBD = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"
_SCRIBBLES, _CLICKS = "scribble_annotation/pascal_2012", "whats_the_point/data/pascal2012_trainval_main.json"
_FROM_VOC = "unpack VOCtrainval_11-May-2012.tar there"
_FROM_SBD = "unpack SBD's benchmark.tgz there"
_FROM_SCRIBBLES = "unpack ScribbleSup's scribble_annotation.zip there"
_FROM_CLICKS = "put What's the Point's pascal2012_trainval_main.json there"


@dataclass(frozen=True)
class Voc2012:
    """The unpacked archives, with one kind of labels."""

    root: Path
    labels: str
    radius: float
    inside: str
    clicks: dict[str, Any] = field(repr=False)
    """What's the Point's annotations, for `clicks` only"""

    @property
    def masks(self) -> LabelMaps:
        """The whole masks of the devkit."""
        classes = Classes(len(CLASSES), BACKGROUND)
        return LabelMaps(self.root / _DEVKIT / "SegmentationClass", classes, sparse=False)

    def image(self, image_id: str) -> Path:
        """The image file."""
        return spelt(self.root / _DEVKIT / "JPEGImages", f"{image_id}.jpg")

    def annotation(self, image_id: str, shape: tuple[int, int]) -> Annotation:
        """Labels and tags of the kind, and the mask of VOC, or else of SBD, where there is one."""
        mask = self._mask(image_id)
        if not self.has(image_id):
            return Annotation(mask=mask)
        kinds = (self.labels,)
        if self.labels == "tags":
            return Annotation(None, voc_files.read_names(self.source(image_id), shape), mask, kinds)
        if self.labels == "boxes":
            boxes = voc_files.read_boxes(self.source(image_id), shape)
            tags = tuple(sorted({label for label, *_ in boxes}))
            return Annotation(box_labels(boxes, shape, BACKGROUND, self.inside), tags, mask, kinds, boxes)
        semantic = mask if self.labels == "masks" else self._weak_labels(image_id, shape)
        assert semantic is not None  # `has` found the file of the mask
        tags = classes_in(semantic, len(CLASSES), BACKGROUND)
        # Weak labels of the background alone do not say that there is nothing else.
        return Annotation(semantic, tags if tags or self.labels == "masks" else None, mask, kinds)

    def has(self, image_id: str) -> bool:
        """Whether the image is annotated."""
        if self.labels == "clicks":
            return bool(self.clicks.get(image_id))
        return self.source(image_id).is_file()

    def source(self, image_id: str) -> Path:
        """The image's own file of labels; `clicks` have none."""
        if self.labels in STROKES:
            return spelt(self.root / _SCRIBBLES, f"{image_id}.xml")
        if self.labels in ("boxes", "tags"):
            return spelt(self.root / _DEVKIT / "Annotations", f"{image_id}.xml")
        return self._mask_file(image_id)

    def _mask_file(self, image_id: str) -> Path:
        own = spelt(self.root / _DEVKIT / "SegmentationClass", f"{image_id}.png")
        return own if own.is_file() else spelt(self.root / _SBD / "cls", f"{image_id}.mat")

    def _mask(self, image_id: str) -> np.ndarray | None:
        path = self._mask_file(image_id)
        if not path.is_file():
            return None
        return read_label_map(path, len(CLASSES)) if path.suffix == ".png" else voc_files.read_sbd(path)

    def _weak_labels(self, image_id: str, shape: tuple[int, int]) -> np.ndarray:
        if self.labels == "clicks":
            source = f"{self.root / _CLICKS}, image {image_id}"
            points = voc_files.read_clicks(self.clicks[image_id], shape, source)
            return discs(points, shape, self.radius, len(CLASSES), source)
        path, share = self.source(image_id), STROKES[self.labels]
        strokes = [
            (label, shorten_stroke(points, share)) for label, points in voc_files.read_strokes(path, shape)
        ]
        if share > 0:
            return draw_strokes(strokes, shape)
        points = [[label, *np.rint(middle[0]).astype(int).tolist()] for label, middle in strokes]
        return discs(points, shape, self.radius, len(CLASSES), str(path))


def open_voc2012(
    root: str | Path, split: str, labels: str, point_radius: float = 6, boxes: str = "cam"
) -> Recipe:
    """A split of VOC 2012 with one kind of labels.

    split: a list of ImageSets/Segmentation, or `train_aug`: SBD's train and val without VOC's val, and VOC's
    train. labels: one of LABELS. point_radius: of the disc that a point becomes, in pixels. boxes: what
    labels their inside, `cam` or `geometry`. Raises DataError for an unknown split or kind, for files that
    are missing, and for a list that names missing images.
    """
    root = Path(root)
    if labels not in LABELS:
        raise DataError(f"{root}: no labels of this kind", labels, f"choose from {', '.join(LABELS)}")
    require_folder(root, _DEVKIT, _FROM_VOC)
    source, ids = _ids(root, split)
    clicks = read_json(root / _CLICKS, _FROM_CLICKS) if labels == "clicks" and split != "test" else {}
    voc = Voc2012(root, labels, point_radius, boxes, clicks)
    require_images(source, ids, voc.image, _FROM_VOC)
    missing = [image_id for image_id in ids if not voc.has(image_id)]
    if missing and split != "test" and labels != "clicks":
        raise DataError(
            f"{root}: {len(missing)} of {len(ids)} images have no {labels}",
            f"first missing: {voc.source(missing[0])}",
            _FROM_SBD if labels == "masks" else _FROM_SCRIBBLES if labels in STROKES else _FROM_VOC,
        )
    return Recipe(
        "voc2012",
        split,
        labels,
        CLASSES,
        BACKGROUND,
        ids,
        voc.image,
        voc.annotation,
        annotated=len(missing) < len(ids),
        notes=tuple(filter(None, [voc.masks.doubt("SegmentationClass", ids)])),
    )


def _ids(root: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    """The list that was read and its ids."""
    lists = root / _DEVKIT / "ImageSets" / "Segmentation"
    if split not in SPLITS:
        raise DataError(f"{lists}: no such split", split, f"choose from {', '.join(SPLITS)}")
    if split != "train_aug":
        path = lists / f"{split}.txt"
        return path, read_ids(path, _FROM_VOC)
    sbd = require_folder(root, _SBD, _FROM_SBD)
    train, val = (set(read_ids(lists / f"{name}.txt", _FROM_VOC)) for name in ("train", "val"))
    of_sbd = {image_id for name in ("train", "val") for image_id in read_ids(sbd / f"{name}.txt", _FROM_SBD)}
    return sbd / "train.txt", tuple(sorted((of_sbd - val) | train))
