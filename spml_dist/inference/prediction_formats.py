"""Predictions as label tools import them: COCO's JSON, CVAT's segmentation masks, Label Studio's brushes."""

from __future__ import annotations

import io
import json
import os
import posixpath
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image

from spml_dist.drawing.overlay import palette
from spml_dist.errors import DataError, RunError
from spml_dist.files.write import WRITABLE, replacing, write_json, write_text
from spml_dist.inference import brush_runs
from spml_dist.inference.prediction_folder import Entry


def write_format(
    name: str, out: Path, images: Sequence[Entry], classes: Sequence[str], background: int | None
) -> Path:
    """Write one of FORMATS beside the masks, and return its file.

    images: entries of predictions.json; the background is what no annotation covers. Raises as
    `require_format`, and RunError for a file that cannot be written.
    """
    require_format(name, classes)
    try:
        return FORMATS[name](out, images, classes, background)
    except OSError as error:
        raise RunError(f"{out}: cannot be written", error.strerror, WRITABLE) from error


def require_format(name: str, classes: Sequence[str]) -> None:
    """Raise DataError for a class name that a format cannot hold."""
    if name == "cvat" and (bad := [each for each in classes if set(each) & set(":#\n")]):
        remedy = "labelmap.txt has no way to write it: rename the class"
        raise DataError("cvat: a class name with a colon, a hash or a line break", bad[0], remedy)


def _coco(out: Path, images: Sequence[Entry], classes: Sequence[str], background: int | None) -> Path:
    """coco.json: an annotation for each class of each image, as compressed runs."""
    from pycocotools import mask as runs

    annotations: list[dict[str, Any]] = []
    for number, entry in enumerate(images, 1):
        labels = _labels(out, entry)
        for label in _found(labels, background):
            encoded = runs.encode(np.asfortranarray(labels == label, np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,  # 0 is nobody's id in COCO
                    "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")},
                    "area": int(runs.area(encoded)),
                    "bbox": [float(side) for side in runs.toBbox(encoded)],
                    "iscrowd": 0,
                }
            )
    whole = {
        "images": [
            {
                "id": number,
                "file_name": _file_name(entry),
                "height": entry["height"],
                "width": entry["width"],
            }
            for number, entry in enumerate(images, 1)
        ],
        "categories": [
            {"id": label + 1, "name": name, "supercategory": ""}
            for label, name in enumerate(classes)
            if label != background
        ],
        "annotations": annotations,
    }
    write_json(out / "coco.json", whole, sort_keys=False)
    return out / "coco.json"


def _cvat(out: Path, images: Sequence[Entry], classes: Sequence[str], background: int | None) -> Path:
    """cvat.zip: "Segmentation mask 1.1", which tells classes by the colours of labelmap.txt."""
    colours = palette(len(classes))
    if background is not None:
        colours[background] = 0
    named = [f"{name}:{','.join(map(str, colours[label].tolist()))}::" for label, name in enumerate(classes)]
    if background is None:
        named.insert(0, "background:0,0,0::")  # it has to be there, and no pixel has it
    names = [entry["image"] for entry in images]
    path = out / "cvat.zip"
    with replacing(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *named, ""]).encode())
        _add(archive, "ImageSets/Segmentation/default.txt", "\n".join([*names, ""]).encode())
        for entry in images:
            file = io.BytesIO()
            Image.fromarray(colours[_labels(out, entry)]).save(file, "PNG")
            _add(archive, f"SegmentationClass/{entry['image']}.png", file.getvalue())
    return path


def _labelstudio(out: Path, images: Sequence[Entry], classes: Sequence[str], background: int | None) -> Path:
    """labelstudio.json: a task for each image, its classes as brushes of a prediction; and the setup."""
    tasks = [
        {
            "data": {"image": _file_name(entry)},
            "predictions": [
                {
                    "model_version": "spml-dist",
                    "score": entry["mean_confidence"],
                    "result": list(_brushes(out, entry, classes, background)),
                }
            ],
        }
        for entry in images
    ]
    colours = palette(len(classes), background)
    labels = [
        f"    <Label value={quoteattr(name)} background={quoteattr('#' + bytes(colours[label]).hex())}/>"
        for label, name in enumerate(classes)
        if label != background
    ]
    head = ["<View>", '  <Image name="image" value="$image"/>', '  <BrushLabels name="tag" toName="image">']
    write_text(out / "labelstudio.xml", "\n".join([*head, *labels, "  </BrushLabels>", "</View>", ""]))
    # On one line: the bytes of a mask are a list of numbers.
    write_text(out / "labelstudio.json", json.dumps(tasks, ensure_ascii=False) + "\n")
    return out / "labelstudio.json"


def _brushes(
    out: Path, entry: Entry, classes: Sequence[str], background: int | None
) -> Iterator[dict[str, Any]]:
    labels = _labels(out, entry)
    for label in _found(labels, background):
        runs = brush_runs.encode(labels == label)
        yield {
            "id": f"class{label}",
            "type": "brushlabels",
            "from_name": "tag",
            "to_name": "image",
            "original_width": entry["width"],
            "original_height": entry["height"],
            "image_rotation": 0,
            "value": {"format": "rle", "rle": runs, "brushlabels": [classes[label]]},
        }


FORMATS: dict[str, Callable[[Path, Sequence[Entry], Sequence[str], int | None], Path]] = {
    "coco": _coco,
    "cvat": _cvat,
    "labelstudio": _labelstudio,
}


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """A member that is the same bytes whenever it is written."""
    archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def _labels(out: Path, entry: Entry) -> np.ndarray:
    with Image.open(out / entry["mask"]) as picture:
        return np.array(picture)


def _found(labels: np.ndarray, background: int | None) -> Iterator[int]:
    return (label for label in np.unique(labels).tolist() if label != background)


def _file_name(entry: Entry) -> str:
    """Name of the image's file below the folder of all: the prediction's, and of its source the last part."""
    place, stem = posixpath.split(entry["image"])
    file = os.path.basename(entry["source"])
    if stem in (file, PurePosixPath(file).stem):
        return posixpath.join(place, file)
    # An image of a pack, whose key is behind the pack's place.
    return posixpath.join(place, stem if stem.endswith(".jpg") else f"{stem}.jpg")
