"""Image files with anything in them beside their pixels."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from spml_dist.data import decoding
from spml_dist.data.decoding import decode, orientation
from spml_dist.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def written(form: str, **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(RGB).save(content, form, **options)
    return content.getvalue()


def with_segment(content: bytes, marker: int, payload: bytes) -> bytes:
    """A JPEG with an application segment at its start."""
    return content[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + content[2:]


def exif(*entries: bytes) -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value


TURNED = entry(0x112, 3, 1, struct.pack("<HH", 6, 0))


@pytest.mark.parametrize(
    "odd",
    [
        entry(0x11A, 2, 3, b"72\0\0"),  # a resolution as a text
        entry(0x11A, 5, 1, struct.pack("<I", 4_000_000_000)),  # one that lies beyond the block
        entry(0x8769, 4, 1, struct.pack("<I", 8)),  # a block inside itself
        entry(0x9204, 10, 2**31, bytes(4)),
        entry(0x9999, 99, 1, bytes(4)),  # a kind of value that there is not
    ],
)
def test_an_odd_exif_leaves_the_orientation_as_it_is_said(odd):
    content = with_segment(written("JPEG"), 0xE1, exif(TURNED, odd))
    assert orientation(content) == 6
    assert decode(content, "x.jpg", upright=True).size == (6, 9)
    assert decode(content, "x.jpg").size == (9, 6)


@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0II*", b"Exif\0\0" + bytes(40), exif(TURNED)[:20]])
def test_a_damaged_exif_turns_nothing(block):
    content = with_segment(written("JPEG"), 0xE1, block)
    assert orientation(content) == 1 and decode(content, "x.jpg", upright=True).size == (9, 6)


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED, 0xEF, 0xFE])
def test_what_a_jpeg_carries_beside_its_pixels_changes_none(marker):
    plain = written("JPEG")
    content = with_segment(plain, marker, b"ICC_PROFILE\0\xff\0 and no profile at all")
    assert np.array_equal(decode(content, "x.jpg"), decode(plain, "x.jpg"))


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_the_orientation_of_other_formats_is_applied_too(form):
    block = Image.Exif()
    block[0x112] = 8
    content = written(form, exif=block) if form != "WEBP" else written(form, exif=block, lossless=True)
    assert orientation(content) == 8
    assert np.array_equal(decode(content, "x", upright=True), np.rot90(RGB))


def test_a_long_text_and_profile_in_a_png_change_no_pixel():
    notes = PngImagePlugin.PngInfo()
    notes.add_text("history", "x" * 3_000_000, zip=True)
    notes.add_itxt("XML:com.adobe.xmp", "y" * 200_000)
    content = written("PNG", pnginfo=notes, icc_profile=bytes(2_000_000))
    assert np.array_equal(decode(content, "x.png"), RGB)


@pytest.mark.parametrize(
    ("size", "limit"),
    [((70_000, 2), "longer than the 65,500 pixels a side"), ((90, 90), "more than the 8,000")],
)
def test_an_image_beyond_our_limits_is_named_with_its_size(size, limit, monkeypatch):
    monkeypatch.setattr(decoding, "LARGEST", 8_000)
    content = io.BytesIO()
    Image.new("1", size).save(content, "PNG")
    with pytest.raises(DataError, match=f"^x.png: {limit}.*{size[0]}×{size[1]}.*tiles"):
        decode(content.getvalue(), "x.png")


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"", "zero bytes.*download it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer.*git lfs pull"),
        (b"<html>quota exceeded</html>", "it is an HTML page.*download it again"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "it is a HEIC image.*convert it to PNG or JPEG"),
        (written("PNG")[:60], "damaged PNG"),
        (b"\x01\x02\x03\x04", "cannot identify an image in it"),
    ],
)
def test_what_cannot_be_decoded_is_called_what_it_is(content, seen):
    with pytest.raises(DataError, match=f"^x.jpg: cannot be decoded.*{seen}"):
        decode(content, "x.jpg")
