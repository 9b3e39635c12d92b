"""What a file really is."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image

from spml_dist.files.signatures import recognised


@pytest.mark.parametrize(
    ("form", "name"),
    [("PNG", "a PNG image"), ("JPEG", "a JPEG image"), ("WEBP", "a WebP image"), ("TIFF", "a TIFF image"),
     ("BMP", "a BMP image"), ("GIF", "a GIF image")],
)  # fmt: skip
def test_images_are_known_by_their_first_bytes(form, name):
    written = io.BytesIO()
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(written, form)
    assert recognised(written.getvalue()) == (name, "")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "zero bytes"),
        (bytes(600), "nothing but zero bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>quota exceeded</html>", "an HTML page"),
        (b'<?xml version="1.0"?><Error/>', "an XML file"),
        (b'{"message": "not found"}', "a JSON text"),
        (b"Not found", "a text"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "an AVIF image"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\0\5\x16\7\0\2", "a macOS resource fork"),
        (struct.pack("<Q", 14) + json.dumps({"weight": {}}).encode(), "a safetensors file"),
    ],
)
def test_what_lies_under_a_wrong_name_is_said(content, name):
    assert recognised(content)[0].startswith(name)


def test_unknown_bytes_are_not_guessed_at():
    assert recognised(b"\x80\x02}q\x00\xff") == ("", "")


@pytest.mark.parametrize("length", [0, 10**9])
def test_a_number_alone_makes_no_safetensors_file(length):
    assert recognised(struct.pack("<Q", length) + b'{"weight": {}}')[0] != "a safetensors file"
