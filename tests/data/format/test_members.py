"""A sample as members of a tar."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from spml_dist.data.format.members import WEAK, decode, encode, encode_jpeg
from spml_dist.errors import DataError
from tests.data.conftest import samples

WITHOUT_TAGS, TAGGED = samples(2)
BOXED = replace(
    TAGGED, kinds=("points", "boxes"), boxes=((1, 0.0, 2.5, 9.0, 8.0),), contradicted=3, unlisted=(2,)
)
CONFIDENCE = np.arange(1200, dtype=np.uint16).astype(np.uint8).reshape(30, 40)
LABELLED = replace(TAGGED, mask=None, confidence=CONFIDENCE)


@pytest.mark.parametrize(
    "sample",
    [WITHOUT_TAGS, TAGGED, replace(TAGGED, mask=None), replace(TAGGED, tags=()), BOXED, LABELLED],
)
def test_decoding_gives_back_what_was_encoded(sample):
    found = decode(sample.key, dict(encode(sample, encode_jpeg(sample))), 3)
    for name in ("key", "tags", *WEAK):
        assert getattr(found, name) == getattr(sample, name)
    for name in ("semantic", "regions"):
        assert getattr(found, name).dtype == getattr(sample, name).dtype
        assert np.array_equal(getattr(found, name), getattr(sample, name))
    for ours, theirs in ((found.mask, sample.mask), (found.confidence, sample.confidence)):
        assert ours is None if theirs is None else np.array_equal(ours, theirs)
    assert np.abs(found.image.astype(int) - sample.image).mean() < 3


def test_tags_are_written_in_order():
    members = dict(encode(replace(TAGGED, tags=(2, 1)), b""))
    assert members["tags.json"] == b"[1, 2]"


def png(pixels: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


@pytest.mark.parametrize(
    ("member", "content", "seen"),
    [
        ("jpg", None, r"missing \['jpg'\]"),
        ("depth.png", b"", r"unknown \['depth.png'\]"),
        ("jpg", b"", r"\.jpg: cannot be decoded"),
        ("jpg", encode_jpeg(TAGGED)[:-200], r"\.jpg: cannot be decoded"),
        ("jpg", png(TAGGED.semantic), r"\.jpg: colour mode"),
        ("semantic.png", png(TAGGED.regions), r"semantic\.png: colour mode"),
        ("semantic.png", png(TAGGED.semantic[1:]), r"semantic\.png: not of the image's size"),
        ("semantic.png", png(np.full_like(TAGGED.semantic, 3)), r"semantic\.png: a label outside.*got 3"),
        ("mask.png", png(np.full_like(TAGGED.semantic, 254)), r"mask\.png: a label outside.*got 254"),
        ("regions.png", png(TAGGED.semantic), r"regions\.png: colour mode"),
        ("confidence.png", png(TAGGED.semantic[1:]), r"confidence\.png: not of the image's size"),
        ("tags.json", b"[3]", r"tags\.json: not null or a list"),
        ("tags.json", b"{", r"tags\.json: not JSON"),
        ("weak.json", b"{", r"weak\.json: not what is known"),
        ("weak.json", b'{"kinds": []}', r"weak\.json: not what is known"),
        (
            "weak.json",
            b'{"kinds": [], "boxes": [[3, 0, 0, 1, 1]], "contradicted": 0, "unlisted": []}',
            r"weak\.json.*a box of class 3",
        ),
    ],
)
def test_anything_else_is_named(member, content, seen):
    members = dict(encode(TAGGED, encode_jpeg(TAGGED)))
    if content is None:
        del members[member]
    else:
        members[member] = content
    with pytest.raises(DataError, match=rf"^image-1.*{seen}"):
        decode("image-1", members, 3)
