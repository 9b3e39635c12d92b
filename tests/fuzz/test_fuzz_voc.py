"""Whatever stands in VOC's XML, .mat and JSON files: packed as it says, rejected by name, or refused."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from spml_dist.data.recipes.voc2012 import CLASSES, open_voc2012
from tests.fuzz.conftest import fuzz
from tests.fuzz.mutations import damaged, files, mutated
from tests.fuzz.packing import HEIGHT, WIDTH, draw_image, packed

DEVKIT = "VOCdevkit/VOC2012"
SIZE = {"width": WIDTH, "height": HEIGHT, "depth": 3}
BOX = {"xmin": 3, "ymin": 2, "xmax": 9, "ymax": 8}
OBJECTS = {
    "filename": "a.jpg",
    "size": SIZE,
    "object": [
        {"name": "cat", "pose": "Left", "bndbox": BOX, "part": {"name": "head", "bndbox": BOX}},
        {"name": "Dog", "bndbox": {"xmin": 1, "ymin": 1, "xmax": WIDTH, "ymax": HEIGHT}},
    ],
}
STROKES = {
    "size": SIZE,
    "polygon": [
        {"tag": "cat", "point": [{"X": 2, "Y": 3}, {"X": 8, "Y": 3}]},
        {"tag": "background", "point": [{"X": 2, "Y": 8}]},
    ],
}
CLICKS = {"a": [{"x": 5, "y": 4, "cls": 8}, {"x": 12.4, "y": 99, "cls": 12}], "b": []}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw_image(tmp_path / DEVKIT / "JPEGImages/a.jpg")
    for folder in (
        f"{DEVKIT}/Annotations",
        f"{DEVKIT}/ImageSets/Segmentation",
        "scribble_annotation/pascal_2012",
        "benchmark_RELEASE/dataset/cls",
        "whats_the_point/data",
    ):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / DEVKIT / "ImageSets/Segmentation/train.txt").write_text("a\n")
    return tmp_path


def pack(root: Path, labels: str):
    with tempfile.TemporaryDirectory() as out:
        found = packed(lambda: open_voc2012(root, "train", labels, 1), Path(out) / "out")
    return found and found[1].get("a")


def xml(tag: str, content: Any) -> str:
    """A document of dicts and lists as elements."""
    if isinstance(content, list):
        return "".join(xml(tag, each) for each in content)
    if isinstance(content, dict):
        inner = "".join(xml(name, each) for name, each in content.items())
    else:
        inner = escape(str(content)).replace("\0", "").encode("utf-8", "replace").decode()
    name = tag if tag.isidentifier() and tag.isascii() else "x"
    return f"<{name}>{inner}</{name}>"


def documents(document: dict) -> st.SearchStrategy[bytes]:
    sound = xml("annotation", document).encode()
    changed = mutated(document).map(lambda each: xml("annotation", each).encode())
    nested = st.sampled_from(
        [b"<a>" * 5000, BOMB, b"", b"\xff\xfe<", b"<?xml version='1.0' encoding='x'?><a/>"]
    )
    return st.one_of(changed, changed, changed, damaged(sound), nested)


BOMB = (
    b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(
        b'<!ENTITY %c "%s">' % (letter + 1, b"&%c;" % letter * 20) for letter in range(ord("a"), ord("k"))
    )
    + b"]><annotation>&k;</annotation>"
)


@pytest.mark.parametrize("labels", ["boxes", "tags"])
@fuzz
@given(content=documents(OBJECTS))
def test_objects(root, labels, content):
    (root / DEVKIT / "Annotations/a.xml").write_bytes(content)
    if sample := pack(root, labels):
        found = ElementTree.fromstring(content).findall("object")
        names = [each.find("name").text.strip().lower() for each in found]
        assert sample.tags == tuple(sorted({CLASSES.index(name) for name in names}))
        if labels == "boxes":
            assert len(found) == len(sample.boxes)
            for name, each, (label, *box) in zip(names, found, sample.boxes, strict=True):
                corners = [float(each.find(f"bndbox/{side}").text) for side in BOX]
                assert CLASSES[label] == name
                limits = (WIDTH, HEIGHT, WIDTH, HEIGHT)
                for number, (at, packed_at, limit) in enumerate(zip(corners, box, limits, strict=True)):
                    start = at - 1 if number < 2 else at
                    assert -2 < start < limit + 1 and packed_at == min(max(start, 0), limit)


@pytest.mark.parametrize("labels", ["scribbles", "scribbles50", "points"])
@fuzz
@given(content=documents(STROKES))
def test_strokes(root, labels, content):
    (root / "scribble_annotation/pascal_2012/a.xml").write_bytes(content)
    if sample := pack(root, labels):
        polygons = ElementTree.fromstring(content).findall("polygon")
        names = {each.find("tag").text.strip().lower() for each in polygons}
        assert set(np.unique(sample.semantic).tolist()) - {254} <= {CLASSES.index(name) for name in names}


@fuzz
@given(content=files(CLICKS))
def test_clicks(root, content):
    (root / "whats_the_point/data/pascal2012_trainval_main.json").write_bytes(content)
    if sample := pack(root, "clicks"):
        clicks = json.loads(content.removeprefix(b"\xef\xbb\xbf")).get("a") or []
        for click in clicks:
            x, y = round(click["x"]), round(click["y"])
            if 0 <= x < WIDTH and 0 <= y < HEIGHT:
                at = [each["cls"] for each in clicks if (round(each["x"]), round(each["y"])) == (x, y)]
                assert sample.semantic[y, x] == int(at[0])


MAP = np.kron(np.array([[0, 8], [255, 12]], np.uint8), np.ones((HEIGHT // 2, WIDTH // 2), np.uint8))


def saved(labels: Any, compressed: bool) -> bytes:
    file = io.BytesIO()
    content = {"Segmentation": labels, "Boundaries": np.eye(3), "CategoriesPresent": [[8]]}
    savemat(file, {"GTcls": content}, do_compression=compressed)
    return file.getvalue()


ARRAYS = st.one_of(
    st.sampled_from(
        [MAP, MAP.T, MAP[:, :3], MAP.astype(float), MAP.astype(float) + 0.5, MAP.astype(np.int16) - 9]
    ),
    st.sampled_from(
        [np.zeros((0, 0)), np.zeros((2, 2, 2)), "text", np.array([[1j]]), MAP == 8, [], {"a": 1}]
    ),
)


@fuzz
@given(labels=ARRAYS, compressed=st.booleans())
def test_label_maps_of_matlab(root, labels, compressed):
    (root / "benchmark_RELEASE/dataset/cls/a.mat").write_bytes(saved(labels, compressed))
    if sample := pack(root, "masks"):
        assert np.array_equal(sample.semantic, labels)


@fuzz
@given(content=st.booleans().flatmap(lambda compressed: damaged(saved(MAP, compressed))))
def test_damaged_files_of_matlab(root, content):
    (root / "benchmark_RELEASE/dataset/cls/a.mat").write_bytes(content)
    pack(root, "masks")


@fuzz
@given(content=st.one_of(damaged(b"a\nb\n"), st.text().map(lambda text: text.encode("utf-8", "ignore"))))
def test_lists_of_images(root, content):
    (root / DEVKIT / "Annotations/a.xml").write_text(xml("annotation", OBJECTS))
    (root / DEVKIT / "ImageSets/Segmentation/train.txt").write_bytes(content)
    pack(root, "tags")
