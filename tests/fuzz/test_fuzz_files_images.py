"""Image files: with anything in their headers they are decoded, or refused by name in one line."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from spml_dist.data.annotations.label_maps import read_label_map
from spml_dist.data.decoding import decode, is_rgb_jpeg, orientation
from spml_dist.data.recipes.image_files import is_turned, plain_jpeg, read_image
from spml_dist.errors import DataError
from spml_dist.files.signatures import recognised
from tests.fuzz.conftest import fuzz
from tests.fuzz.damage import damaged

RGB = np.random.default_rng(0).integers(0, 256, (12, 17, 3)).astype(np.uint8)
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")


def written(form: str, mode: str = "RGB", **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(RGB).convert(mode).save(content, form, **options)
    return content.getvalue()


SOUND = {form: written(form) for form in FORMATS} | {
    "grey PNG": written("PNG", "L"),
    "palette PNG": written("PNG", "P"),
    "turned TIFF": written("TIFF", exif=Image.Exif()),
    "packed TIFF": written("TIFF", compression="tiff_lzw"),
    "CMYK JPEG": written("JPEG", "CMYK"),
}


def entry() -> st.SearchStrategy[bytes]:
    """A line of EXIF: tag, kind of value, how many, and the value or where it lies."""
    tags = st.sampled_from(
        (0x112, 0x11A, 0x11B, 0x128, 0x8769, 0x8825, 0xA005, 0x9204, 0x927C)
    ) | st.integers(0, 65535)
    values = st.binary(min_size=4, max_size=4) | st.integers(0, 80).map(
        lambda value: struct.pack("<I", value)
    )
    return st.builds(
        lambda tag, kind, count, value: struct.pack("<HHI", tag, kind, count) + value,
        tags,
        st.integers(0, 14),
        st.integers(0, 9) | st.integers(0, 2**32 - 1),
        values,
    )


@st.composite
def exif(draw) -> bytes:
    entries = draw(st.lists(entry(), max_size=5))
    count = len(entries) if draw(st.integers(0, 4)) else draw(st.integers(0, 65535))
    body = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + b"".join(entries) + draw(st.binary(max_size=40))
    return b"Exif\0\0" + body


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


SEGMENTS = st.builds(segment, st.just(0xE1), exif()) | st.builds(
    segment,
    st.sampled_from((0xE1, 0xE2, 0xE3, 0xED, 0xEF, 0xFE)),
    st.sampled_from(
        (b"ICC_PROFILE\0\1\2", b"MPF\0II*\0", b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0", b"")
    ).flatmap(lambda head: st.binary(max_size=60).map(lambda rest: head + rest)),
)
CHUNKS = st.builds(chunk, st.just(b"eXIf"), exif().map(lambda block: block[6:])) | st.builds(
    chunk,
    st.sampled_from(
        (
            b"iCCP",
            b"tEXt",
            b"zTXt",
            b"iTXt",
            b"pHYs",
            b"gAMA",
            b"cHRM",
            b"sRGB",
            b"acTL",
            b"fcTL",
            b"tIME",
            b"zzZz",
        )
    ),
    st.binary(max_size=60) | st.binary(max_size=9).map(lambda text: b"k\0\0" + zlib.compress(text * 90_000)),
)


@fuzz
@given(st.lists(SEGMENTS, max_size=4))
def test_a_jpeg_with_any_segments_before_its_pixels_has_these_pixels(segments):
    plain = SOUND["JPEG"]
    content = plain[:2] + b"".join(segments) + plain[2:]
    assert np.array_equal(decode(content, "x"), decode(plain, "x"))
    assert is_rgb_jpeg(content)
    turned = decode(content, "x", upright=True)
    assert turned.size == ((12, 17) if orientation(content) > 4 else (17, 12))


@fuzz
@given(st.lists(CHUNKS, max_size=4))
def test_a_png_with_any_chunks_beside_its_pixels_has_these_pixels(chunks):
    plain = SOUND["PNG"]
    content = plain[:33] + b"".join(chunks) + plain[33:]
    assert np.array_equal(decode(content, "x"), RGB)
    turned = decode(content, "x", upright=True)
    assert turned.size == ((12, 17) if orientation(content) > 4 else (17, 12))


def with_notes(form: str) -> st.SearchStrategy[bytes]:
    """A file with anything in it, spoilt besides."""
    sound = SOUND[form]
    if form.endswith("JPEG"):
        return st.lists(SEGMENTS, max_size=2).flatmap(
            lambda new: damaged(sound[:2] + b"".join(new) + sound[2:])
        )
    if form.endswith("PNG"):
        return st.lists(CHUNKS, max_size=2).flatmap(
            lambda new: damaged(sound[:33] + b"".join(new) + sound[33:])
        )
    return damaged(sound)


@pytest.mark.parametrize("form", SOUND)
@fuzz
@given(st.data())
def test_a_damaged_image_is_read_or_refused_by_name(form, data):
    content = data.draw(with_notes(form))
    assert orientation(content) in range(1, 9)
    assert all(isinstance(word, str) for word in recognised(content))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jpg"
        path.write_bytes(content)
        for read in (read_image, is_turned, plain_jpeg, lambda path: read_label_map(path, 3)):
            try:
                read(path)
            except DataError as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)


@fuzz
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_name(content):
    with pytest.raises(DataError, match=r"^x: "):
        decode(content, "x")
