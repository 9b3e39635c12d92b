"""What `pack` asks of a recipe: the images of one split, and what is known of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spml_dist.data.annotations.image_bounds import OutsideImageError
from spml_dist.data.format.keys import image_id_of, key_of
from spml_dist.data.format.members import encode_jpeg
from spml_dist.data.pack.region_sources import RegionSource, even_colour
from spml_dist.data.recipes.image_files import is_turned, plain_jpeg, read_image
from spml_dist.errors import DataError
from spml_dist.records import UNLABELLED, Box, Sample


@dataclass(frozen=True)
class Annotation:
    """What is known of one image. Maps are [H, W] uint8 and as large as the image."""

    semantic: np.ndarray | None = None
    """0..K-1 labelled, 254 unlabelled, 255 ignored; None = nobody labelled a pixel"""
    tags: tuple[int, ...] | None = None
    """classes known to be in the image, without the background; None = unknown, () = known to hold none"""
    mask: np.ndarray | None = None
    """whole mask, 0..K-1 or 255; for evaluation"""
    kinds: tuple[str, ...] = ()
    """kinds of annotation that the image has"""
    boxes: tuple[Box, ...] | None = None
    """boxes of all its objects; None = nobody drew them"""
    contradicted: int = 0
    """pixels of which two kinds say different classes"""
    unlisted: tuple[int, ...] = ()
    """classes that its pixels or boxes show and its list of tags leaves out"""


@dataclass(frozen=True)
class Recipe:
    """One split of a data set with one kind of annotation, or several. It can be sent to other processes."""

    name: str
    """of the data set"""
    split: str
    labels: str
    """kinds of annotation, with commas between"""
    classes: tuple[str, ...]
    background: int | None
    ids: tuple[str, ...]
    image: Callable[[str], Path] = field(repr=False)
    """image id -> file of the image"""
    annotation: Callable[[str, tuple[int, int]], Annotation] = field(repr=False)
    """image id and (H, W) -> what is known; raises DataError, naming the file"""
    annotated: bool = True
    """whether any image of the split has an annotation of these kinds"""
    forms: frozenset[str] = frozenset()
    """what its kinds of marks are: `points` (discs), `keypoints` (heat maps), `boxes`, `tags`"""
    regions: RegionSource = field(default=even_colour, repr=False)
    notes: tuple[str, ...] = ()
    """lines for whoever packs it: kinds that no image has, annotations that belong to no image"""

    def is_annotated(self) -> bool:
        """Whether any image of the split has an annotation of these kinds."""
        return self.annotated

    def samples(self) -> Iterator[Sample]:
        """All samples, in the order of the ids."""
        return map(self.sample, self.ids)

    def sample(self, image_id: str) -> Sample:
        """One sample. Raises DataError, naming the file, for anything that cannot be used."""
        path = self.image(image_id)
        image = read_image(path)
        known = self._known(image_id, path, image.shape[:2])
        semantic = (
            np.full(image.shape[:2], UNLABELLED, np.uint8) if known.semantic is None else known.semantic
        )
        require_size(path, image.shape[:2], semantic, "label")
        require_size(path, image.shape[:2], known.mask, "mask")
        return Sample(
            key=key_of(image_id),
            image=image,
            semantic=semantic,
            regions=self.regions(image_id, image),
            tags=known.tags,
            mask=known.mask,
            kinds=known.kinds,
            boxes=known.boxes,
            contradicted=known.contradicted,
            unlisted=known.unlisted,
        )

    def _known(self, image_id: str, path: Path, shape: tuple[int, int]) -> Annotation:
        try:
            return self.annotation(image_id, shape)
        except OutsideImageError as error:
            if not is_turned(path):
                raise
            remedy = f"{error.remedy}; an EXIF orientation turned the image: mark it as it is shown"
            raise DataError(error.what, error.value, remedy) from error

    def jpeg(self, sample: Sample) -> bytes:
        """The image file's own bytes if they are a plain JPEG, else the image encoded."""
        original = plain_jpeg(self.image(image_id_of(sample.key)))
        return encode_jpeg(sample) if original is None else original


def classes_in(labels: np.ndarray, num_classes: int, background: int | None) -> tuple[int, ...]:
    """Ascending classes of a label map [H, W], without the background: the tags that it shows."""
    present = np.unique(labels[labels < num_classes]).tolist()
    return tuple(label for label in present if label != background)


def require_images(source: Path, ids: tuple[str, ...], image: Callable[[str], Path], remedy: str) -> None:
    """Raise DataError, naming the list `source` and the first image, if it names missing images."""
    missing = [image_id for image_id in ids if not os.path.isfile(image(image_id))]
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of its {len(ids)} images have no image",
            f"first missing: {image(missing[0])}",
            remedy,
        )


def require_size(path: Path, shape: tuple[int, int], labels: np.ndarray | None, name: str) -> None:
    """Raise DataError, naming the image's file and the label, if a label map has another size."""
    if labels is None or labels.shape == shape:
        return
    height, width = shape
    turned = " as its EXIF orientation turns it" if is_turned(path) else ""
    raise DataError(
        f"{path}: image{turned} and {name} differ in size",
        f"{width}×{height} and {labels.shape[1]}×{labels.shape[0]} pixels",
        "label the image as it is shown, and take both from the same release of the data set",
    )
