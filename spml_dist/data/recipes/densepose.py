"""The `densepose` recipe: DensePose-COCO's body parts (Güler et al., CVPR 2018), whole or as a point each.

Read as the archives unpack: COCO's train2014/ and val2014/, and annotations/ with
densepose_coco_2014_{train,minival,valminusminival}.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from spml_dist.data.annotations.boxes import fitted_boxes
from spml_dist.data.annotations.coco_masks import decode
from spml_dist.data.annotations.keypoints import HeatMap, heat_labels
from spml_dist.data.annotations.points import Point, discs
from spml_dist.data.recipes.archives import UNPACK_AGAIN, require_folder
from spml_dist.data.recipes.coco_files import CocoFile, JsonObject, read_coco
from spml_dist.data.recipes.recipe import Annotation, Recipe, classes_in, require_images
from spml_dist.errors import DataError
from spml_dist.records import IGNORED, UNLABELLED

CLASSES = (
    "background", "torso", "right hand", "left hand", "left foot", "right foot", "right upper leg",
    "left upper leg", "right lower leg", "left lower leg", "left upper arm", "right upper arm",
    "left lower arm", "right lower arm", "head",
)  # fmt: skip
"""in the order of dp_masks"""

FILES = {
    "train2014": ("train2014", "densepose_coco_2014_train.json"),
    "minival2014": ("val2014", "densepose_coco_2014_minival.json"),
    "valminusminival2014": ("val2014", "densepose_coco_2014_valminusminival.json"),
}
"""folder of images and file of annotations of each split"""

LABELS = ("masks", "points", "keypoints")
FAR = 0.25
"""of the image's diagonal: beyond this from every point, `points` label background"""

_SIDE = 256
"""of the square that dp_masks are drawn in, whatever the person's box"""


@dataclass(frozen=True)
class DensePose:
    """One split, with one kind of labels."""

    folder: Path
    labels: str
    radius: float
    heat: HeatMap
    file: CocoFile = field(repr=False)

    def image(self, image_id: str) -> Path:
        """The image file."""
        return self.folder / self.file.files[image_id]

    def annotation(self, image_id: str, shape: tuple[int, int]) -> Annotation:
        """Labels, tags and mask. Tags are unknown where a person's parts were not drawn."""
        self.file.require_size(image_id, shape)
        people = self.file.of(image_id)
        drawn = [self._parts(image_id, person, shape) for person in people if _is_drawn(person)]
        others = self._others(image_id, people, shape)
        mask = np.where(others, np.uint8(IGNORED), np.uint8(0))
        for parts, window in sorted(drawn, key=lambda person: person[0].size, reverse=True):
            _paste(mask, parts, window)
        tags = classes_in(mask, len(CLASSES), 0)
        known = None if others.any() else tags
        if self.labels == "masks":
            return Annotation(mask, known, mask, ("masks",))
        points = [point for parts, window in drawn for point in _centres(parts, window, shape)]
        if not points:
            return Annotation(mask=mask)
        return Annotation(self._weak_labels(image_id, points, others), known, mask, (self.labels,))

    def _weak_labels(self, image_id: str, points: list[Point], others: np.ndarray) -> np.ndarray:
        """[H, W] uint8 of an image with points; people whose parts nobody drew are no background."""
        if self.labels == "keypoints":
            semantic = heat_labels(points, others.shape, self.heat, 0)
        else:
            semantic = discs(points, others.shape, self.radius, len(CLASSES), self.file.names(image_id))
            semantic[_far(points, others.shape) & (semantic == UNLABELLED)] = 0
        semantic[others & (semantic == 0)] = UNLABELLED
        return semantic

    def _parts(
        self, image_id: str, person: JsonObject, shape: tuple[int, int]
    ) -> tuple[np.ndarray, tuple[int, int, int, int]]:
        """[h, w] uint8: the parts of one person in its box, 0..14; and left, top, width and height of it."""
        source = self.file.names(image_id, person)
        if not isinstance(person["dp_masks"], list) or len(person["dp_masks"]) != len(CLASSES) - 1:
            raise DataError(f"{source}: dp_masks are not {len(CLASSES) - 1} parts", None, UNPACK_AGAIN)
        square = np.zeros((_SIDE, _SIDE), np.uint8)
        for part, runs in enumerate(person["dp_masks"], start=1):
            if runs:
                square[decode(runs, square.shape, source)] = part
        window = _window(person, shape, source)
        return cv2.resize(square, window[2:], interpolation=cv2.INTER_NEAREST), window

    def _others(self, image_id: str, people: list[JsonObject], shape: tuple[int, int]) -> np.ndarray:
        """[H, W] bool: people whose parts nobody drew."""
        others = np.zeros(shape, bool)
        for person in people:
            if not _is_drawn(person) and person.get("segmentation"):
                others |= decode(person["segmentation"], shape, self.file.names(image_id, person))
        return others


def open_densepose(
    root: str | Path, split: str, labels: str, point_radius: float = 6, heat: HeatMap | None = None
) -> Recipe:
    """A split of DensePose-COCO (train2014, minival2014, valminusminival2014) with parts or points.

    labels: `masks`; `points`, discs at the centre of each part that a person shows (SPML paper, section 4)
    and background where all of them are far; or `keypoints`, heat maps around these centres (appendix A.3).
    point_radius: of a disc, in pixels. heat: of a keypoint.
    Raises DataError for an unknown split or kind, and for files that are missing or damaged.
    """
    root = Path(root)
    if split not in FILES or labels not in LABELS:
        known = f"splits: {', '.join(FILES)}; labels: {', '.join(LABELS)}"
        raise DataError(f"{root}: no such split or labels", f"{split}, {labels}", known)
    folder, name = FILES[split]
    require_folder(root, folder, f"unpack COCO's {folder}.zip there")
    put = f"put DensePose-COCO's {name} there"
    file = read_coco(root / "annotations" / name, root / folder, ("bbox",), put)
    if not any(_is_drawn(person) for people in file.entries.values() for person in people):
        raise DataError(f"{file.path}: no annotation has dp_masks", None, put)
    people = DensePose(root / folder, labels, point_radius, heat or HeatMap(), file)
    ids = tuple(file.files)
    require_images(file.path, ids, people.image, f"unpack COCO's {folder}.zip there again")
    return Recipe("densepose", split, labels, CLASSES, 0, ids, people.image, people.annotation)


def _is_drawn(person: JsonObject) -> bool:
    return "dp_masks" in person


def _window(person: JsonObject, shape: tuple[int, int], source: str) -> tuple[int, int, int, int]:
    """Left, top, width and height of the person's box, in whole pixels."""
    x, y, width, height = person["bbox"]
    corners = (0, x, y, x + width, y + height)
    fitted_boxes([corners], shape, source, "[left, top, width, height]", [person["bbox"]])
    return max(int(x), 0), max(int(y), 0), max(int(width), 1), max(int(height), 1)


def _paste(mask: np.ndarray, parts: np.ndarray, window: tuple[int, int, int, int]) -> None:
    left, top, _, _ = window
    into = mask[top : top + parts.shape[0], left : left + parts.shape[1]]
    inside = parts[: into.shape[0], : into.shape[1]]
    into[inside > 0] = inside[inside > 0]


def _centres(parts: np.ndarray, window: tuple[int, int, int, int], shape: tuple[int, int]) -> list[Point]:
    """(class, x, y) of each part in the image: its pixel nearest to the mean of its pixels there."""
    left, top, _, _ = window
    inside = parts[: max(shape[0] - top, 0), : max(shape[1] - left, 0)]
    points = []
    for part in np.unique(inside[inside > 0]).tolist():
        rows, columns = np.nonzero(inside == part)
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        points.append((part, left + int(columns[nearest]), top + int(rows[nearest])))
    return points


def _far(points: list[Point], shape: tuple[int, int]) -> np.ndarray:
    """[H, W] bool: pixels that are farther than FAR from every point, of which there is one at least."""
    away = np.ones(shape, np.uint8)
    for _, x, y in points:
        away[y, x] = 0
    return cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) > FAR * np.hypot(*shape)
