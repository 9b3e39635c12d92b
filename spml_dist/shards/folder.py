"""The `folder` recipe: one's own pictures and annotations, in the folder layout of shards/README.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spml_dist.errors import DataError
from spml_dist.schema import UNLABELLED, Sample
from spml_dist.shards.keys import image_id_of, key_of
from spml_dist.shards.kinds import MASKS, Kind, LabelMaps, open_kind, open_masks, read_by_image
from spml_dist.shards.layout import read_background, read_classes, read_split
from spml_dist.shards.members import encode_jpeg
from spml_dist.shards.pictures import find_picture, is_turned, plain_jpeg, read_picture
from spml_dist.shards.regions import RegionSource, even_colour


@dataclass(frozen=True)
class Folder:
    """One split of a folder with one kind of annotation."""

    root: Path
    split: str
    labels: str
    classes: tuple[str, ...]
    background: int | None
    ids: tuple[str, ...]
    kind: Kind = field(repr=False)
    masks: LabelMaps = field(repr=False)
    tags: dict[str, Any] = field(repr=False)
    """weak/tags.json; empty if there is none, and under full supervision, where the masks say it"""
    regions: RegionSource = field(default=even_colour, repr=False)

    def is_annotated(self) -> bool:
        """Whether any image of the split has an annotation of this kind."""
        return any(map(self.kind.has, self.ids))

    def samples(self) -> Iterator[Sample]:
        """All samples, in the order of the split file."""
        return map(self.sample, self.ids)

    def sample(self, image_id: str) -> Sample:
        """One sample. Raises DataError, naming the file, for anything that cannot be used."""
        path = self._picture(image_id)
        image = read_picture(path)
        semantic = self._semantic(path, image, image_id)
        return Sample(
            key=key_of(image_id),
            image=image,
            semantic=semantic,
            regions=self.regions(image_id, image),
            tags=self._tags(image_id, semantic),
            mask=self._of_size(path, image, self.masks, image_id) if self.masks.has(image_id) else None,
        )

    def jpeg(self, sample: Sample) -> bytes:
        """The picture file's own bytes if they are a plain JPEG, else the picture encoded."""
        original = plain_jpeg(self._picture(image_id_of(sample.key)))
        return encode_jpeg(sample) if original is None else original

    def _picture(self, image_id: str) -> Path:
        return find_picture(self.root / "images", image_id)

    def _semantic(self, path: Path, image: np.ndarray, image_id: str) -> np.ndarray:
        # Weak labels never look at masks/: what nobody annotated stays unlabelled, ignored pixels included.
        if not self.kind.has(image_id):
            return np.full(image.shape[:2], UNLABELLED, np.uint8)
        return self._of_size(path, image, self.kind, image_id)

    def _of_size(self, path: Path, image: np.ndarray, kind: Kind, image_id: str) -> np.ndarray:
        height, width = image.shape[:2]
        labels = kind.semantic(image_id, (height, width))
        if labels.shape != (height, width):
            turned = " as its EXIF orientation turns it" if is_turned(path) else ""
            raise DataError(
                f"{path}: picture{turned} and label of image {image_id} differ in size",
                f"{width}×{height} and {labels.shape[1]}×{labels.shape[0]} pixels",
                "draw the labels on the picture as it is shown",
            )
        return labels

    def _tags(self, image_id: str, semantic: np.ndarray) -> tuple[int, ...] | None:
        if image_id in self.tags:
            return self._listed_tags(image_id)
        present = np.unique(semantic[semantic < len(self.classes)]).tolist()
        tags = tuple(label for label in present if label != self.background)
        # Only a whole mask can say that a picture holds none of the classes.
        whole = self.labels == MASKS and bool(present)
        return tags if tags or whole else None

    def _listed_tags(self, image_id: str) -> tuple[int, ...]:
        tags = self.tags[image_id]
        known = range(len(self.classes))
        if not isinstance(tags, list) or any(type(tag) is not int or tag not in known for tag in tags):
            raise DataError(
                f"{self.root / 'weak' / 'tags.json'}, image {image_id}: not a list of class ids",
                tags,
                f"use ids in 0..{len(self.classes) - 1}",
            )
        return tuple(sorted({tag for tag in tags if tag != self.background}))


def open_folder(root: str | Path, split: str, labels: str, point_radius: float = 3) -> Folder:
    """A split of a folder with one kind of labels: `masks`, or a name under weak/.

    point_radius: of the disc that a point becomes, in pixels. Raises DataError for a folder, split or
    kind that is not there, naming those that are.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", None, "give a folder in the layout of shards/README.md")
    classes = read_classes(root)
    background = read_background(root, classes)
    listed = root / "weak" / "tags.json"
    return Folder(
        root=root,
        split=split,
        labels=labels,
        classes=classes,
        background=background,
        ids=read_split(root, split),
        kind=open_kind(root, labels, len(classes), point_radius),
        masks=open_masks(root, len(classes)),
        tags=read_by_image(listed) if labels != MASKS and listed.is_file() else {},
    )
