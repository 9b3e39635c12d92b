"""PNG annotations."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from spml_dist.data.annotations.label_maps import read_label_map, sparse_labels
from spml_dist.errors import DataError

LABELS = np.array([[0, 1, 2, 255], [2, 2, 255, 0]], np.uint8)


def test_values_are_read_as_they_stand(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / "a.png")
    labels = read_label_map(tmp_path / "a.png", 3)
    assert labels.dtype == np.uint8 and np.array_equal(labels, LABELS)


def test_a_palette_is_decoration(tmp_path):
    image = Image.fromarray(LABELS).convert("P")
    image.putdata(LABELS.ravel())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_label_map(tmp_path / "a.png", 3), LABELS)


def test_seeds_turn_255_into_unlabelled_and_nothing_else():
    assert np.array_equal(sparse_labels(LABELS), [[0, 1, 2, 254], [2, 2, 254, 0]])
    assert sparse_labels(LABELS).dtype == np.uint8


@pytest.mark.parametrize("value", [3, 100, 254])
def test_a_label_outside_the_classes_is_named(tmp_path, value):
    Image.fromarray(np.where(LABELS == 1, np.uint8(value), LABELS)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=rf"a\.png.*\(got {value}\).*0\.\.2"):
        read_label_map(tmp_path / "a.png", 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1", "I;16"])
def test_a_png_that_holds_no_class_ids_is_refused(tmp_path, mode):
    pixels = LABELS.astype(np.uint16) if mode == "I;16" else LABELS
    image = Image.fromarray(pixels)
    (image if mode == "I;16" else image.convert(mode)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: not a PNG of class ids"):
        read_label_map(tmp_path / "a.png", 3)


def test_greys_of_four_bits_are_refused_not_stretched(tmp_path):
    image = Image.fromarray(np.zeros((4, 4), np.uint8))
    image.save(tmp_path / "a.png", bits=4)
    encoded = (tmp_path / "a.png").read_bytes()
    if encoded[24] == 8:  # Pillow writes few bits for palettes only: mark the header instead
        import struct
        import zlib

        header = encoded[12:24] + b"\x04" + encoded[25:29]
        encoded = encoded[:12] + header + struct.pack(">I", zlib.crc32(header)) + encoded[33:]
        (tmp_path / "a.png").write_bytes(encoded)
    with pytest.raises(DataError, match="4 bits a pixel"):
        read_label_map(tmp_path / "a.png", 3)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"GIF89a" + b])
def test_a_file_that_does_not_decode_is_named(tmp_path, damage):
    Image.fromarray(np.random.default_rng(0).integers(0, 3, (64, 64)).astype(np.uint8)).save(
        tmp_path / "a.png"
    )
    (tmp_path / "a.png").write_bytes(damage((tmp_path / "a.png").read_bytes()))
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        read_label_map(tmp_path / "a.png", 3)


def test_a_map_beyond_the_decoder_s_limit_is_refused_by_name(tmp_path, monkeypatch):
    Image.fromarray(LABELS).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    with pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        read_label_map(tmp_path / "a.png", 3)
