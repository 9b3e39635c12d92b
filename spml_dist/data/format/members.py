"""Members of a sample in a tar, KEY.MEMBER each: image, labels, regions, tags, ground truth, confidence."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from PIL import Image

from spml_dist.data.decoding import decode as decode_image
from spml_dist.errors import DataError
from spml_dist.records import IGNORED, UNLABELLED, Box, Sample

REQUIRED = ("jpg", "semantic.png", "regions.png", "tags.json")
OPTIONAL = ("weak.json", "mask.png", "confidence.png")
UNTRAINED = ("mask.png", "confidence.png")
"""members that training does not read"""
WEAK = ("kinds", "boxes", "contradicted", "unlisted")
"""fields of a sample that weak.json holds"""


def encode(sample: Sample, jpeg: bytes) -> list[tuple[str, bytes]]:
    """(member, bytes) of a sample in the order of a tar; the same bytes for the same sample."""
    # None is unknown, () is known to show no class: only of the latter co-occurrence says something.
    tags = None if sample.tags is None else sorted(sample.tags)
    members = [
        ("jpg", jpeg),
        ("semantic.png", _png(sample.semantic)),
        ("regions.png", _png(sample.regions)),
        ("tags.json", json.dumps(tags).encode()),
        ("weak.json", json.dumps({name: getattr(sample, name) for name in WEAK}).encode()),
    ]
    maps = {"mask.png": sample.mask, "confidence.png": sample.confidence}
    return [*members, *((name, _png(pixels)) for name, pixels in maps.items() if pixels is not None)]


def encode_jpeg(sample: Sample) -> bytes:
    """The sample's image as a JPEG of quality 95 without chroma subsampling."""
    encoded = io.BytesIO()
    Image.fromarray(sample.image).save(encoded, "JPEG", quality=95, subsampling=0)
    return encoded.getvalue()


def decode(key: str, members: Mapping[str, bytes], num_classes: int) -> Sample:
    """The sample that `encode` wrote. Raises DataError, starting with the member, for anything else."""
    missing = [member for member in REQUIRED if member not in members]
    unknown = [member for member in members if member not in REQUIRED + OPTIONAL]
    if missing or unknown:
        raise DataError(f"{key}: members missing {missing}, unknown {unknown}", None, "pack again")
    image = _pixels(key, members, "jpg", "RGB")
    sample = Sample(
        key=key,
        image=image,
        semantic=_pixels(key, members, "semantic.png", "L"),
        regions=_pixels(key, members, "regions.png", "I;16"),
        tags=_tags(key, members["tags.json"], num_classes),
        mask=_pixels(key, members, "mask.png", "L") if "mask.png" in members else None,
        confidence=_pixels(key, members, "confidence.png", "L") if "confidence.png" in members else None,
        **(_weak(key, members["weak.json"], num_classes) if "weak.json" in members else {}),
    )
    _check(sample, num_classes)
    return sample


def _png(pixels: np.ndarray) -> bytes:
    _, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    return encoded.tobytes()


def _pixels(key: str, members: Mapping[str, bytes], member: str, mode: str) -> np.ndarray:
    try:
        image = decode_image(members[member], f"{key}.{member}", ["JPEG", "PNG"])
    except DataError as error:
        raise DataError(error.what, error.value, "pack again") from error
    if image.mode != mode:
        raise DataError(f"{key}.{member}: colour mode is not {mode}", image.mode, "pack again")
    return np.array(image)


def _tags(key: str, encoded: bytes, num_classes: int) -> tuple[int, ...] | None:
    try:
        tags = json.loads(encoded)
    except ValueError as error:
        raise DataError(f"{key}.tags.json: not JSON", str(error), "pack again") from error
    if tags is None:
        return None
    if not isinstance(tags, list) or any(type(tag) is not int or not 0 <= tag < num_classes for tag in tags):
        raise DataError(f"{key}.tags.json: not null or a list of ids below {num_classes}", tags, "pack again")
    return tuple(tags)


def _weak(key: str, encoded: bytes, num_classes: int) -> dict[str, Any]:
    try:
        fields = json.loads(encoded)
        if sorted(fields) != sorted(WEAK):
            raise ValueError(f"not {', '.join(WEAK)}")
        boxes = None if fields["boxes"] is None else tuple(_box(box, num_classes) for box in fields["boxes"])
        kinds, unlisted = tuple(map(str, fields["kinds"])), tuple(map(int, fields["unlisted"]))
        return {
            "kinds": kinds,
            "boxes": boxes,
            "contradicted": int(fields["contradicted"]),
            "unlisted": unlisted,
        }
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{key}.weak.json: not what is known of a sample", str(error), "pack again"
        ) from error


def _box(box: list[Any], num_classes: int) -> Box:
    label, x0, y0, x1, y1 = box
    if type(label) is not int or not 0 <= label < num_classes:
        raise ValueError(f"a box of class {label}")
    return label, float(x0), float(y0), float(x1), float(y1)


def _check(sample: Sample, num_classes: int) -> None:
    size = sample.image.shape[:2]
    maps: dict[str, tuple[np.ndarray, tuple[int, ...] | None]] = {
        "semantic.png": (sample.semantic, (UNLABELLED, IGNORED)),
        "regions.png": (sample.regions, None),
    }
    if sample.mask is not None:
        maps["mask.png"] = (sample.mask, (IGNORED,))
    if sample.confidence is not None:
        maps["confidence.png"] = (sample.confidence, None)
    for member, (pixels, beyond) in maps.items():
        if pixels.shape != size:
            raise DataError(
                f"{sample.key}.{member}: not of the image's size",
                f"{pixels.shape[1]}×{pixels.shape[0]}, image {size[1]}×{size[0]}",
                "pack again",
            )
        if beyond is None:
            continue
        outside = pixels[(pixels >= num_classes) & ~np.isin(pixels, beyond)]
        if outside.size:
            raise DataError(
                f"{sample.key}.{member}: a label outside the classes", outside.min(), "pack again"
            )
