"""Whatever stands in an annotation file of COCO's format: packed as it says, rejected by name, or refused."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.mask import decode, encode

from spml_dist.data.recipes.coco import open_coco
from spml_dist.data.recipes.densepose import open_densepose
from spml_dist.records import Sample
from tests.fuzz.conftest import fuzz
from tests.fuzz.mutations import files
from tests.fuzz.packing import HEIGHT, WIDTH, draw_image, packed

SIZE = {"width": WIDTH, "height": HEIGHT}
SQUARE = {"segmentation": [[2, 1, 8, 1, 8, 7, 2, 7]], "bbox": [2, 1, 6, 6], "area": 36, "iscrowd": 0}
RUNS = {"counts": [23, 5, WIDTH * HEIGHT - 28], "size": [HEIGHT, WIDTH]}
TEXT = {"counts": encode(np.asfortranarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)))["counts"].decode()}
DOCUMENT = {
    "images": [
        {"id": 1, "file_name": "a.jpg", **SIZE},
        {"id": 2, "file_name": "day/b.jpg", **SIZE},
        {"id": 7, "file_name": "é.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, **SQUARE},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 5,
            **SQUARE,
            "segmentation": [[9, 6, 13, 6, 13, 9.5, 9, 9.5]],
        },
        {"id": 3, "image_id": 2, "category_id": 3, **SQUARE, "segmentation": RUNS, "bbox": [2, 3, 1, 5]},
        {
            "id": 5,
            "image_id": 7,
            "category_id": 9,
            **SQUARE,
            "segmentation": {**TEXT, "size": [HEIGHT, WIDTH]},
        },
        {"id": 4, "image_id": 2, "category_id": 9, **SQUARE, "segmentation": [], "bbox": [0, 0, 14, 10]},
    ],
    "categories": [{"id": 5, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 9, "name": 7}],
}
PANOPTIC = {
    "images": DOCUMENT["images"],
    "annotations": [
        {"image_id": n, "file_name": f"{n}.png", "segments_info": [{"id": 4, "category_id": 3}, last]}
        for n, last in (
            (1, {"id": 300, "category_id": 9}),
            (2, {"id": 5, "category_id": 5}),
            (7, {"id": 5, "category_id": 3}),
        )
    ],
    "categories": DOCUMENT["categories"],
}
PERSON = {"dp_masks": [[] for _ in range(14)], "bbox": [2, 1, 8, 8], "category_id": 1, "segmentation": []}
PEOPLE = {
    "images": DOCUMENT["images"],
    "annotations": [
        {"id": 1, "image_id": 1, **PERSON},
        {"id": 2, "image_id": 2, **SQUARE, "category_id": 1},
    ],
    "categories": [{"id": 1, "name": "person"}],
}
PERSON["dp_masks"][0] = {"counts": [0, 65536], "size": [256, 256]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("val2017", "val2014"):
        for seed, name in enumerate(("a.jpg", "day/b.jpg", "é.jpg")):
            draw_image(tmp_path / folder / name, seed)
    (tmp_path / "annotations/panoptic_val2017").mkdir(parents=True)
    for number in (1, 2, 7):
        colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        colours[:4, :, 0], colours[5:, :, 0], colours[5:, :, 1] = 4, (44 if number == 1 else 5), number == 1
        Image.fromarray(colours).save(tmp_path / f"annotations/panoptic_val2017/{number}.png")
    return tmp_path


def read(content: bytes) -> dict[str, Any]:
    return json.loads(content.removeprefix(b"\xef\xbb\xbf"))


@pytest.mark.parametrize("labels", ["masks", "boxes", "tags"])
@fuzz
@given(data=st.data())
def test_instances(root, labels, data):
    content = data.draw(files(DOCUMENT))
    (root / "annotations/instances_val2017.json").write_bytes(content)
    with tempfile.TemporaryDirectory() as out:
        found = packed(lambda: open_coco(root, "val2017", labels), Path(out) / "out")
    if found:
        recipe, samples = found
        document = read(content)
        classes = classes_of(document)
        assert list(recipe.classes) == list(dict.fromkeys(["background", *classes.values()]))
        for image, entries in by_image(document):
            (sample,) = [each for name, each in samples.items() if is_of(image, name)] or [None]
            if sample:
                outcome = [(recipe.classes.index(classes[each["category_id"]]), each) for each in entries]
                check(labels, image, outcome, sample)


def classes_of(document: dict) -> dict[Any, str]:
    """Names by category id, as a reader would write them down who knows nothing of the product."""
    found = {}
    for category in sorted(
        document["categories"], key=lambda each: (isinstance(each["id"], str), each["id"])
    ):
        name = " ".join(str(category["name"]).split())
        found[category["id"]] = "background" if name.strip("_ ").casefold() == "background" else name
    return found


def by_image(document: dict) -> list[tuple[dict, list[dict]]]:
    return [
        (image, [each for each in document["annotations"] if each["image_id"] == image["id"]])
        for image in document["images"]
    ]


def is_of(image: dict, image_id: str) -> bool:
    path = PurePosixPath(image["file_name"].replace("\\", "/"))
    return image_id in (path.stem, str(path.with_suffix("")))


def check(labels: str, image: dict, outcome: list[tuple[int, dict]], sample: Sample) -> None:
    if image.get("width") and image.get("height"):
        assert (image["height"], image["width"]) == sample.image.shape[:2]
    if labels != "masks":
        assert sample.tags == tuple(sorted({label for label, _ in outcome} - {0}))
    if labels == "boxes":
        assert len(outcome) == len(sample.boxes)
        for (label, entry), (packed_label, *corners) in zip(outcome, sample.boxes, strict=True):
            x, y, width, height = entry["bbox"]
            assert label == packed_label and width > 0 and height > 0
            limits = (WIDTH, HEIGHT, WIDTH, HEIGHT)
            for at, cut, limit in zip((x, y, x + width, y + height), corners, limits, strict=True):
                assert -1 < at < limit + 1 and cut == min(max(at, 0), limit)
    if sample.mask is None:
        assert labels != "masks"
        return
    for row in range(HEIGHT):
        for column in range(WIDTH):
            covers = [(label, cover(entry["segmentation"], row, column)) for label, entry in outcome]
            if all(share == 0 for _, share in covers):
                assert sample.mask[row, column] == 0
            if any(share == 1 for _, share in covers):
                assert sample.mask[row, column] in [label for label, share in covers if share]


def cover(segmentation: Any, row: int, column: int) -> float:
    """1 = a pixel is surely within, 0 = surely outside, 0.5 = the outline passes near it."""
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        if isinstance(counts, str):
            return int(by_pycocotools(counts)[row, column])
        at, place = column * HEIGHT + row, 0
        for number, length in enumerate(counts):
            place += length
            if at < place:
                return number % 2
        raise AssertionError("runs that do not fill the image")
    shares = [near_polygon(polygon, column + 0.5, row + 0.5) for polygon in segmentation if len(polygon) > 5]
    return max(shares, default=0)


@cache
def by_pycocotools(counts: str) -> np.ndarray:
    return decode({"counts": counts, "size": [HEIGHT, WIDTH]})


def near_polygon(polygon: list[float], x: float, y: float) -> float:
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    inside = False
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-9)
        along = min(max(along, 0), 1)
        if (x - x0 - along * (x1 - x0)) ** 2 + (y - y0 - along * (y1 - y0)) ** 2 < 2:
            return 0.5
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            inside = not inside
    return int(inside)


@fuzz
@given(data=st.data())
def test_panoptic_segments(root, data):
    content = data.draw(files(PANOPTIC))
    (root / "annotations/panoptic_val2017.json").write_bytes(content)
    with tempfile.TemporaryDirectory() as out:
        found = packed(lambda: open_coco(root, "val2017", "masks", "panoptic"), Path(out) / "out")
    if found:
        recipe, samples = found
        document = read(content)
        names = {each["id"]: " ".join(str(each["name"]).split()) for each in document["categories"]}
        for image, entries in by_image(document):
            for sample in [each for name, each in samples.items() if is_of(image, name)]:
                colours = np.array(
                    Image.open(root / "annotations/panoptic_val2017" / entries[0]["file_name"])
                )
                for (row, column), label in np.ndenumerate(sample.mask):
                    number = int(colours[row, column] @ [1, 256, 65536])
                    of = [each for each in entries[0]["segments_info"] if each["id"] == number]
                    assert label == (recipe.classes.index(names[of[0]["category_id"]]) if of else 255)


@pytest.mark.parametrize("labels", ["masks", "points", "keypoints"])
@fuzz
@given(data=st.data())
def test_body_parts(root, labels, data):
    content = data.draw(files(PEOPLE))
    (root / "annotations/densepose_coco_2014_minival.json").write_bytes(content)
    with tempfile.TemporaryDirectory() as out:
        found = packed(lambda: open_densepose(root, "minival2014", labels, 1), Path(out) / "out")
    if found and labels == "masks":
        for image, entries in by_image(read(content)):
            for sample in [each for name, each in found[1].items() if is_of(image, name)]:
                boxes = [each["bbox"] for each in entries if "dp_masks" in each]
                for (row, column), label in np.ndenumerate(sample.mask):
                    within = any(
                        x - 1 <= column < x + w + 1 and y - 1 <= row < y + h + 1 for x, y, w, h in boxes
                    )
                    assert label in (0, 255) or within
