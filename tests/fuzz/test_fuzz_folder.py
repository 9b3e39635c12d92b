"""Whatever stands in the JSON files and texts of a folder: packed as it says, rejected, or refused."""

from __future__ import annotations

import json
import math
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spml_dist.data.recipes.annotation_kinds import MarkSettings
from spml_dist.data.recipes.folder import open_folder
from spml_dist.records import Sample
from tests.fuzz.conftest import fuzz
from tests.fuzz.mutations import damaged, files, mutated
from tests.fuzz.packing import HEIGHT, WIDTH, draw_image, packed

IDS = ("a", "day/b", "é", "c.1")
CLASSES = ("background", "cat", "dog", "7")
TAGS = {"a": [1], "day/b": [2, 0, 3], "é": [], "c.1": [1, 2]}
BOXES = {"a": [[1, 2, 1, 9, 7]], "day/b": [[2, 0, 0, 14, 10], [3, 4.5, 2.25, 8.5, 6]], "é": []}
POINTS = {"a": [[1, 3, 4], [0, 12, 8]], "day/b": [[2, 13, 9], [3, 0.4, 2.0]], "é": []}
META = {"background": 0, "classes": list(CLASSES), "ignore": 255}
KINDS = {"tags": TAGS, "boxes": BOXES, "points": POINTS, "keypoints": POINTS}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, image_id in enumerate(IDS):
        draw_image(tmp_path / f"images/{image_id}.jpg", seed)
    (tmp_path / "weak").mkdir()
    (tmp_path / "classes.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(CLASSES)))
    (tmp_path / "meta.json").write_text(json.dumps(META))
    (tmp_path / "train.txt").write_text("\n".join(IDS) + "\n", encoding="utf-8")
    return tmp_path


PLACE = st.one_of(
    st.integers(-1, WIDTH + 1),
    st.floats(-1.5, WIDTH + 1.5),
    st.sampled_from([-1e-14, -0.3, HEIGHT + 0.004, WIDTH + 0.3, WIDTH + 3e-14, HEIGHT - 1, WIDTH - 1]),
)
LABEL = st.integers(0, len(CLASSES))


def listed(kind: str) -> st.SearchStrategy[bytes]:
    """Lists by image of the right form, whatever they say."""
    mark = {
        "tags": LABEL,
        "boxes": st.tuples(LABEL, PLACE, PLACE, PLACE, PLACE),
        "points": st.tuples(LABEL, PLACE, PLACE),
        "keypoints": st.tuples(LABEL, PLACE, PLACE),
    }[kind]
    documents = st.dictionaries(st.sampled_from(IDS), st.lists(mark, max_size=3), min_size=1)
    return documents.map(lambda each: json.dumps(each).encode())


def pack(root: Path, labels: str, **more):
    with tempfile.TemporaryDirectory() as out:
        marks = MarkSettings(point_radius=1, boxes="geometry")
        return packed(lambda: open_folder(root, "train", labels, marks, **more), Path(out) / "out")


def message(content: bytes, image_id: str) -> list | None:
    """What a JSON file says of an image, by whichever form of its name."""
    entries = {unicodedata.normalize("NFC", name): each for name, each in json.loads(content).items()}
    return entries.get(unicodedata.normalize("NFC", image_id))


def test_the_sound_documents_are_packed_whole(root):
    for kind, document in KINDS.items():
        (root / f"weak/{kind}.json").write_text(json.dumps(document))
        recipe, samples = pack(root, kind)
        assert sorted(samples) == sorted(IDS) and recipe.classes == CLASSES


@pytest.mark.parametrize("kind", KINDS)
@fuzz
@given(data=st.data())
def test_lists_by_image(root, kind, data):
    content = data.draw(st.one_of(files(KINDS[kind]), listed(kind)))
    (root / f"weak/{kind}.json").write_bytes(content)
    if found := pack(root, kind):
        for image_id, sample in found[1].items():
            entry = message(content.removeprefix(b"\xef\xbb\xbf"), image_id)
            if entry is None:
                assert sample.kinds == () and sample.tags is None and (sample.semantic == 254).all()
            else:
                (form,) = found[0].forms
                CHECKS[form](entry, sample)


def check_tags(entry: list, sample: Sample) -> None:
    assert sample.tags == tuple(sorted(set(entry) - {0}))
    assert all(type(tag) is int for tag in entry) and len(set(entry)) == len(entry)


def check_boxes(entry: list, sample: Sample) -> None:
    assert sample.tags == tuple(sorted({label for label, *_ in entry}))
    assert len(entry) == len(sample.boxes)
    for (label, *corners), (packed_label, *cut) in zip(entry, sample.boxes, strict=True):
        limits = (WIDTH, HEIGHT, WIDTH, HEIGHT)
        assert label == packed_label and label != 0
        for at, found, limit in zip(corners, cut, limits, strict=True):
            assert -1 < at < limit + 1 and found == min(max(at, 0), limit)
    for (row, column), label in np.ndenumerate(sample.semantic):
        depths = [(depth(box[1:], row, column), box) for box in entry]
        if all(away <= -1 for away, _ in depths):
            assert label == 0
        if any(away >= 1 for away, _ in depths):
            assert label == 254 or label in [box[0] for away, box in depths if away > 0]


def depth(corners: list[float], row: int, column: int) -> float:
    """How far the middle of a pixel lies inside a box, below 0 outside."""
    x0, y0, x1, y1 = corners
    x, y = column + 0.5, row + 0.5
    return min(x - x0, x1 - x, y - y0, y1 - y)


def placed(entry: list) -> Iterator[tuple[int, int, int]]:
    for label, *place in entry:
        assert all(at < side + 1 and at > -1 for at, side in zip(place, (WIDTH, HEIGHT), strict=True))
        x, y = (min(max(round(at), 0), side - 1) for at, side in zip(place, (WIDTH, HEIGHT), strict=True))
        yield label, x, y


def check_points(entry: list, sample: Sample) -> None:
    points = list(placed(entry))
    for (row, column), label in np.ndenumerate(sample.semantic):
        near = [((x - column) ** 2 + (y - row) ** 2, n) for n, (_, x, y) in enumerate(points)]
        inside = [each for each in near if each[0] <= 1]
        assert label == (points[min(inside)[1]][0] if inside else 254)


def check_keypoints(entry: list, sample: Sample) -> None:
    points = list(placed(entry))
    sigma = 0.03 * math.hypot(WIDTH, HEIGHT)
    for (row, column), label in np.ndenumerate(sample.semantic):
        near = [((x - column) ** 2 + (y - row) ** 2, n) for n, (_, x, y) in enumerate(points)]
        if not near:
            assert label == 254
            continue
        squared, first = min(near)
        heat = math.exp(-squared / (2 * sigma**2))
        assert label == (points[first][0] if heat >= 0.5 else 0 if heat < 0.02 else 254)


CHECKS = {"tags": check_tags, "boxes": check_boxes, "points": check_points, "keypoints": check_keypoints}


@fuzz
@given(data=st.data())
def test_kinds_of_each_image(root, data):
    for kind, document in KINDS.items():
        (root / f"weak/{kind}.json").write_text(json.dumps(document))
    document = {"a": ["tags", "boxes"], "day/b": ["points"], "é": []}
    content = data.draw(files(document))
    (root / "kinds.json").write_bytes(content)
    if found := pack(root, "points,boxes,tags", labels_from=root / "kinds.json"):
        for image_id, sample in found[1].items():
            has = {kind for kind in message(content.removeprefix(b"\xef\xbb\xbf"), image_id) or ()}
            assert set(sample.kinds) == {kind for kind in has if image_id in KINDS[kind]}


LINE = st.one_of(
    st.sampled_from(
        ["0 cat", "1", "a b", "9 x", "4294967296 x", "0 é", "1 e\u0301", "# note", "0\tx y", "-1 x"]
    ),
    st.text(max_size=12),
)


def lines(listed: list[str]) -> st.SearchStrategy[bytes]:
    """A text with some of its lines changed, taken out or put in; or with damaged bytes."""
    changed = st.one_of(
        mutated(listed).map(lambda each: each if isinstance(each, list) else [each]),
        st.lists(st.one_of(st.sampled_from(listed), LINE), max_size=8),
    ).map(lambda found: "\n".join(map(str, found)).encode("utf-8", "surrogatepass"))
    return st.one_of(changed, damaged("\n".join(listed).encode()))


@fuzz
@given(content=lines([f"{n} {name}" for n, name in enumerate(CLASSES)]))
def test_classes(root, content):
    (root / "classes.txt").write_bytes(content)
    (root / "meta.json").write_text('{"background": 0}')
    (root / "weak/tags.json").write_text('{"a": [0]}')
    if found := pack(root, "tags"):
        text = content.decode("utf-8-sig")
        parts = (line.strip().split(None, 1) for line in text.splitlines() if line.strip())
        assert found[0].classes == tuple(name for _, name in sorted((int(n), name) for n, name in parts))


@fuzz
@given(content=files(META))
def test_the_background(root, content):
    (root / "meta.json").write_bytes(content)
    (root / "weak/tags.json").write_text(json.dumps({"a": [0, 1], "é": [2]}))
    if found := pack(root, "tags"):
        background = json.loads(content.removeprefix(b"\xef\xbb\xbf"))["background"]
        assert found[0].background == background
        assert set(found[1]["a"].tags) == {0, 1} - {background}


@fuzz
@given(content=lines([*IDS, "day/b", "e\u0301"]))
def test_splits(root, content):
    (root / "train.txt").write_bytes(content)
    (root / "weak/tags.json").write_text(json.dumps(TAGS))
    if found := pack(root, "tags"):
        listed = [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
        assert list(found[0].ids) == listed
        assert all(unicodedata.normalize("NFC", image_id) in IDS for image_id in found[1])
