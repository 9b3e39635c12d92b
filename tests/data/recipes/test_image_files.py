"""Images as they are found."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from spml_dist.data.recipes.image_files import find_image, plain_jpeg, read_image
from spml_dist.errors import DataError
from tests.data.conftest import image

RGB = image(3)


@pytest.mark.parametrize("name", ["x.jpg", "x.jpeg", "x.png", "x.JPG", "x.Jpg", "x.webp", "x.TIF", "x.Bmp"])
def test_an_image_is_found_by_its_id(tmp_path, name):
    Image.fromarray(RGB).save(tmp_path / name)
    assert find_image(tmp_path, "x") == tmp_path / name


def test_an_id_without_image_is_named(tmp_path):
    with pytest.raises(DataError, match="lost: no image"):
        find_image(tmp_path, "lost")


def test_two_images_of_one_id_are_refused_by_name(tmp_path):
    for name in ("x.jpg", "x.png"):
        Image.fromarray(RGB).save(tmp_path / name)
    with pytest.raises(DataError, match=r"x\.jpg: two images of one id \(got .*x\.png beside it\)"):
        find_image(tmp_path, "x")


def test_two_names_of_one_file_are_one_image(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.jpg")
    (tmp_path / "x.JPG").symlink_to(tmp_path / "x.jpg")
    assert find_image(tmp_path, "x") == tmp_path / "x.jpg"


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA"])
def test_greys_palettes_and_transparency_become_rgb(tmp_path, mode):
    converted = Image.fromarray(RGB).convert(mode)
    converted.save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png")
    assert image.shape == RGB.shape and image.dtype == np.uint8
    assert np.array_equal(image, np.array(converted.convert("RGB")))


@pytest.mark.parametrize(("limit", "message"), [(1200, ""), (1199, "DataError")])
def test_a_very_large_image_is_read_without_a_warning_and_a_bomb_is_refused(tmp_path, limit, message):
    Image.fromarray(RGB).save(tmp_path / "x.jpg")
    code = (
        "import pathlib, sys; from PIL import Image; Image.MAX_IMAGE_PIXELS = 1000;"  # Pillow's own warns
        "from spml_dist.data import decoding; from spml_dist.data.recipes import image_files;"
        f"decoding.LARGEST = {limit}; image_files.read_image(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-W", "always", "-c", code, str(tmp_path / "x.jpg")]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stderr
    assert "Warning" not in outcome
    assert message in outcome if message else not outcome


def test_sixteen_bits_a_channel_are_refused(tmp_path):
    Image.fromarray(RGB[..., 0].astype(np.uint16) * 200).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="8 bits a channel"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_a_channel_are_refused_in_colour_too(tmp_path, colour, channels, interlaced):
    (tmp_path / "x.png").write_bytes(deep_png(colour, channels, interlaced))
    with pytest.raises(DataError, match=r"x\.png: not an image of 8 bits a channel .*;16.*convert it"):
        read_image(tmp_path / "x.png")


def deep_png(colour: int, channels: int, interlaced: int) -> bytes:
    """A PNG of one pixel with 16 bits a channel, which Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 16, colour, 0, 0, interlaced)
    pixel = zlib.compress(b"\0" + struct.pack(f">{channels}H", *[4000] * channels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def turned(path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(RGB).save(path, exif=exif, quality=95)


def test_the_exif_orientation_is_applied(tmp_path):
    turned(tmp_path / "x.jpg", 6)
    image = read_image(tmp_path / "x.jpg")
    assert image.shape == (RGB.shape[1], RGB.shape[0], 3)
    assert np.abs(image.astype(int) - np.rot90(RGB, -1)).mean() < 8


def test_only_an_upright_rgb_jpeg_is_kept_byte_for_byte(tmp_path):
    turned(tmp_path / "upright.jpg", 1)
    turned(tmp_path / "turned.jpg", 3)
    Image.fromarray(RGB).save(tmp_path / "x.png")
    Image.fromarray(RGB).convert("L").save(tmp_path / "grey.jpg")
    assert plain_jpeg(tmp_path / "upright.jpg") == (tmp_path / "upright.jpg").read_bytes()
    assert [plain_jpeg(tmp_path / name) for name in ("turned.jpg", "x.png", "grey.jpg")] == [None] * 3


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (lambda b: b"", "zero bytes"),
        (lambda b: b[:-99], "truncated"),
        (lambda b: b"no image", "identify"),
    ],
)
def test_an_image_that_does_not_decode_is_named(tmp_path, damage, seen):
    path = tmp_path / "x.jpg"
    Image.fromarray(RGB).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=rf"x\.jpg: cannot be decoded.*{seen}"):
        read_image(path)
