"""Contours by a network from an ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spml_dist.data.annotations.contour_network import network_contours
from spml_dist.data.annotations.ucm import cut_to, hierarchy
from spml_dist.errors import DataError

HEIGHT, WIDTH = 24, 40


def field(number: int, value: bytes | int | str) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low = value & 0x7F
    return bytes([low | 0x80]) + _varint(value >> 7) if value >> 7 else bytes([low])


def tensor(name: str, values: np.ndarray) -> bytes:
    sizes = b"".join(field(1, size) for size in values.shape)
    return sizes + field(2, 1) + field(8, name) + field(9, values.astype("<f4").tobytes())


def port(name: str, channels: int) -> bytes:
    sizes = (field(1, 1), field(1, channels), field(2, "height"), field(2, "width"))
    shape = b"".join(field(1, size) for size in sizes)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def node(kind: str, inputs: list[str], output: str) -> bytes:
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind)


def write_network(path: Path, weights: np.ndarray, sigmoid: bool = True) -> Path:
    """1×1 convolution of [outputs, 3] weights (on BGR less its mean), then a sigmoid: an ONNX model."""
    outputs = len(weights)
    nodes = [node("Conv", ["image", "w"], "raw")]
    if sigmoid:
        nodes.append(node("Sigmoid", ["raw"], "contours"))
    graph = b"".join(field(1, each) for each in nodes) + field(2, "graph")
    graph += field(5, tensor("w", weights.reshape(outputs, 3, 1, 1)))
    graph += field(11, port("image", 3)) + field(12, port("contours" if sigmoid else "raw", outputs))
    opset = field(1, "") + field(2, 13)
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, opset))
    return path


@pytest.fixture
def line() -> np.ndarray:
    """A dark image with a bright red line from top to bottom."""
    image = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    image[:, 20] = (255, 30, 30)
    return image


def test_strength_is_the_network_s_last_output_of_bgr_less_its_mean(tmp_path, line):
    path = write_network(tmp_path / "red.onnx", np.array([[0, 0, 0.05]]))
    found = network_contours(line, path)
    expected = 1 / (1 + np.exp(-0.05 * (line[..., 0] - 122.67891434)))
    np.testing.assert_allclose(found.strength, expected, rtol=1e-4)


def test_the_direction_across_a_line_is_found_from_its_strength(tmp_path, line):
    path = write_network(tmp_path / "red.onnx", np.array([[0, 0, 0.05]]))
    flat = np.zeros((40, 40, 3), np.uint8)
    flat[20] = 255
    across = network_contours(line, path).across[4:-4, 20]
    assert np.minimum(across, np.pi - across).max() < 1e-3
    np.testing.assert_allclose(network_contours(flat, path).across[20, 4:-4], np.pi / 2, atol=1e-3)


def test_regions_lie_on_both_sides_of_the_line(tmp_path, line):
    path = write_network(tmp_path / "red.onnx", np.array([[0, 0, 0.05]]))
    regions = cut_to(hierarchy(network_contours(line, path), line), 2)
    assert len(np.unique(regions[:, :19])) == len(np.unique(regions[:, 22:])) == 1
    assert regions[0, 0] != regions[0, -1]


def test_images_of_any_size_are_taken(tmp_path):
    path = write_network(tmp_path / "red.onnx", np.array([[0, 0, 0.05]]))
    for shape in ((9, 31), (33, 16), (9, 31)):
        assert network_contours(np.zeros((*shape, 3), np.uint8), path).strength.shape == shape


@pytest.mark.parametrize(
    ("weights", "sigmoid", "message"),
    [([[0, 0, 0.05]], False, "outside 0..1"), ([[0, 0, 1], [1, 0, 0]], True, "map")],
)
def test_an_output_that_is_no_strength_is_refused(tmp_path, line, weights, sigmoid, message):
    path = write_network(tmp_path / "odd.onnx", np.array(weights), sigmoid)
    with pytest.raises(DataError, match=rf"odd\.onnx.*{message}"):
        network_contours(line, path)


def test_a_file_that_is_none_is_refused_by_name(tmp_path, line):
    with pytest.raises(DataError, match=r"away\.onnx: no such file"):
        network_contours(line, tmp_path / "away.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(DataError, match=r"text\.onnx"):
        network_contours(line, tmp_path / "text.onnx")
