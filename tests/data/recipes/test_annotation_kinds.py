"""Kinds of annotation in a folder, alone and mixed in one pack."""

from __future__ import annotations

import io
import json
import math
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from spml_dist.cli import main
from spml_dist.data.annotations.keypoints import HeatMap
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.recipes.annotation_kinds import MarkSettings
from spml_dist.data.recipes.folder import open_folder
from spml_dist.errors import ConfigError, DataError
from tests.data.conftest import HEIGHT, WIDTH, image, whole_mask, write_json

IDS = ("a", "b", "Köln/日本.1", "d")
A, B, C, D = IDS
KINDS = ("masks", "lines", "dots", "boxes", "boxes_dog", "tags", "keypoints")
DOTS = {A: [[2, 20, 20], [0, 5, 4]], C: [[1, 9, 25]], D: []}
KEYPOINTS = {A: [[1, 8, 26], [0, 30, 8]], B: [[1, 20, 4]], C: [[2, 30, 20], [1, 4, 4]], D: [[1, 36, 5]]}
BOXES = {A: [[1, 4, 12.5, 33.0, 30]], B: [], D: [[2, 0, 0, 9, 9]]}
BOXES_DOG = {A: [[2, 25, 2, 38, 20]], C: [[2, 26, 15, 36, 25]], D: [[2, 30, 20, 40, 30], [2, 4, 4, 14, 14]]}
BOX_KINDS = {"boxes": BOXES, "boxes_dog": BOXES_DOG}


@pytest.fixture(scope="module")
def street(tmp_path_factory) -> Path:
    """Four images, one with an id beyond ASCII, of which every kind annotates some."""
    root = tmp_path_factory.mktemp("street") / "street"
    for folder in ("images/Köln", "masks/Köln", "weak/lines/Köln"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("0 road\n1 cat\n2 dog\n")
    (root / "meta.json").write_text('{"background": 0}')
    (root / "train.txt").write_text("\n".join(IDS), encoding="utf-8")
    (root / "val.txt").write_text("v\n")
    for seed, image_id in enumerate((*IDS, "v")):
        Image.fromarray(image(seed)).save(root / "images" / f"{image_id}.jpg")
    for seed, image_id in enumerate(IDS[:3]):
        Image.fromarray(whole_mask(seed)).save(root / "masks" / f"{image_id}.png")
        Image.fromarray(drawn_lines(seed)).save(root / "weak/lines" / f"{image_id}.png")
    write_json(root / "weak/dots.json", DOTS)
    write_json(root / "weak/keypoints.json", KEYPOINTS)
    write_json(root / "weak/boxes.json", BOXES)
    write_json(root / "weak/boxes_dog.json", BOXES_DOG)
    write_json(root / "weak/tags.json", {A: [1], B: [], C: [0, 2], "v": [1]})
    return root


def drawn_lines(seed: int) -> np.ndarray:
    lines = np.full((HEIGHT, WIDTH), 255, np.uint8)
    lines[3, 2:30], lines[20, 10:30] = 0, 1 + seed % 2
    return lines


def packed(root, labels, assigned=None, **marks):
    """The samples by image id; assigned: {image id: kinds}."""
    path = None if assigned is None else write(root, assigned)
    recipe = open_folder(root, "train", labels, MarkSettings(**marks), path)
    return {image_id: recipe.sample(image_id) for image_id in recipe.ids}


def write(root: Path, assigned: object) -> Path:
    path = root / "kinds.json"
    path.write_text(json.dumps(assigned), encoding="utf-8")
    return path


kinds = st.lists(st.sampled_from(KINDS), unique=True, min_size=1)
once = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)


@once
@given(order=st.permutations(KINDS), chosen=st.tuples(*(st.none() | st.sampled_from(KINDS) for _ in IDS)))
def test_in_a_mixture_a_sample_is_that_of_its_single_kind_pack(street, order, chosen):
    assigned = {image_id: [kind] for image_id, kind in zip(IDS, chosen, strict=True) if kind}
    mixed = packed(street, ",".join(order), assigned)
    for image_id, kind in zip(IDS, chosen, strict=True):
        alone = packed(street, kind or "lines", None if kind else {})[image_id]
        one = mixed[image_id]
        assert np.array_equal(one.semantic, alone.semantic)
        known = ("tags", "boxes", "kinds", "contradicted", "unlisted")
        assert [getattr(one, name) for name in known] == [getattr(alone, name) for name in known]
        assert one.contradicted == 0 and set(one.kinds) <= {kind}


@once
@given(order=kinds, assigned=st.fixed_dictionaries({image_id: kinds for image_id in IDS}))
def test_the_kind_named_first_decides_and_what_is_known_adds_up(street, order, assigned):
    assigned = {image_id: [kind for kind in names if kind in order] for image_id, names in assigned.items()}
    alone = {kind: packed(street, kind) for kind in order}
    for image_id, sample in packed(street, ",".join(order), assigned).items():
        has = [kind for kind in order if kind in assigned[image_id] and alone[kind][image_id].kinds]
        assert sample.kinds == tuple(has)
        parts = [alone[kind][image_id] for kind in has]
        semantic, contradicted = pixel_by_pixel(image_id, has)
        assert np.array_equal(sample.semantic, semantic) and sample.contradicted == contradicted
        outcome = [set(part.tags) for part in parts if part.tags is not None]
        assert sample.tags == (tuple(sorted(set().union(*outcome))) if outcome else None)
        if "tags" in has:
            listed = alone["tags"][image_id].tags
            assert sample.unlisted == tuple(tag for tag in sample.tags if tag not in listed)
        else:
            assert sample.unlisted == ()


def pixel_by_pixel(image_id: str, names: list[str]) -> tuple[np.ndarray, int]:
    """What docs/labels.md says of every pixel, from the boxes and points themselves."""
    semantic, contradicted = np.full((HEIGHT, WIDTH), 254), 0
    for y in range(HEIGHT):
        for x in range(WIDTH):
            boxed = any(in_a_box(kind, image_id, y, x) for kind in names)
            outcome = [marked(kind, image_id, y, x) for kind in names]
            values = [0 if value == "nothing there" and not boxed else value for value in outcome]
            values = [value for value in values if isinstance(value, int)]
            semantic[y, x] = next(iter(values), 254)
            contradicted += len(set(values) - {255}) > 1
    return semantic, contradicted


@cache
def in_a_box(kind: str, image_id: str, y: int, x: int) -> bool:
    """Whether a box of the kind covers half of the pixel or more along each axis."""
    return any(
        min(x1, x + 1) - max(x0, x) >= 0.5 and min(y1, y + 1) - max(y0, y) >= 0.5
        for _, x0, y0, x1, y1 in BOX_KINDS.get(kind, {}).get(image_id, [])
    )


@cache
def marked(kind: str, image_id: str, y: int, x: int) -> int | str | None:
    """A class or 255, `nothing there` where marks lie elsewhere, None where the kind knows nothing."""
    seed = IDS.index(image_id)
    if kind == "masks":
        return int(whole_mask(seed)[y, x])
    if kind == "lines":
        return {255: None}.get(value := int(drawn_lines(seed)[y, x]), value)
    if kind in BOX_KINDS:
        return None if in_a_box(kind, image_id, y, x) else "nothing there"
    points = {"dots": DOTS, "keypoints": KEYPOINTS}.get(kind, {}).get(image_id)
    if not points:
        return None
    label, distance = min(
        ((each, math.dist((px, py), (x, y))) for each, px, py in points), key=lambda p: p[1]
    )
    if kind == "dots":
        return label if distance <= 3 else None
    heat = math.exp(-(distance**2) / (2 * (0.03 * math.hypot(HEIGHT, WIDTH)) ** 2))
    return label if heat >= 0.5 else "nothing there" if heat < 0.02 else None


@pytest.mark.parametrize(
    "labels", ["boxes,boxes_dog", "boxes_dog,boxes", "boxes,keypoints", "keypoints,boxes"]
)
def test_what_is_only_implied_leaves_the_inside_of_every_box_to_activation_maps(street, labels):
    semantic = packed(street, labels)[A].semantic
    cat, dog = semantic[16:24, 12:24], semantic[4:11, 35:37]
    assert (cat == 254).all() and (dog == (254 if "dog" in labels else 0)).all()
    assert (semantic[0] == 0).all()


def test_background_that_is_drawn_is_no_less_said_inside_a_box(street):
    for labels in ("boxes_dog,keypoints", "keypoints,boxes_dog"):
        assert packed(street, labels)[A].semantic[8, 30] == 0
    assert packed(street, "boxes_dog,boxes,lines")[A].semantic[3, 27] == 0


def test_the_order_of_the_labels_decides(street):
    first, second = packed(street, "lines,dots")["a"], packed(street, "dots,lines")["a"]
    assert (first.semantic[20, 20], second.semantic[20, 20]) == (1, 2)
    assert first.semantic[18, 20] == second.semantic[18, 20] == 2
    assert first.contradicted == second.contradicted == 7 and first.tags == second.tags == (1, 2)
    assert (first.kinds, second.kinds) == (("lines", "dots"), ("dots", "lines"))


def test_ignored_pixels_of_masks_are_decided(street):
    assert (packed(street, "masks,boxes")["a"].semantic[:, 5] == 255).all()
    assert (packed(street, "boxes,masks")["a"].semantic[:12, 5] == 0).all()


def test_boxes_say_what_lies_outside_and_that_there_is_nothing(street):
    found = packed(street, "boxes")
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[12:30, 4:33] = True
    assert np.array_equal(found["a"].semantic, np.where(inside, 254, 0))
    assert found["a"].boxes == ((1, 4.0, 12.5, 33.0, 30.0),) and found["a"].tags == (1,)
    assert (found["b"].semantic == 0).all() and found["b"].boxes == found["b"].tags == ()
    assert found[IDS[2]].boxes is None and found[IDS[2]].tags is None
    assert (packed(street, "boxes", boxes="geometry")["a"].semantic == 1).any()


def test_heat_maps_are_asked_for_or_told_by_the_name(street):
    heat = HeatMap(sigma=3.0)
    for kind, maps, image_id in (("dots", ("dots",), "a"), ("keypoints", (), "b")):
        semantic = packed(street, kind, heat_maps=maps, heat=heat)[image_id].semantic
        assert (semantic == 0).mean() > 0.3 and (semantic == 254).any()
    with pytest.raises(ConfigError, match=r"not a kind of points that is packed \(got boxes\)"):
        packed(street, "boxes,dots", heat_maps=("boxes",))
    with pytest.raises(ConfigError, match=r"\(got dots\); name kinds of points among the labels lines"):
        packed(street, "lines", heat_maps=("dots",))


def test_classes_that_the_tags_leave_out_are_added_and_counted(street):
    sample = packed(street, "dots,boxes,tags")["a"]
    assert sample.tags == (1, 2) and sample.unlisted == (2,)


def test_points_or_nothing_say_nothing_of_the_tags(street):
    found = packed(street, "dots,lines,tags", {"d": ["dots"], "b": []})
    assert found["d"].tags is None and found["d"].kinds == ("dots",)
    assert found["b"].tags is None and found["b"].kinds == () and (found["b"].semantic == 254).all()
    assert found["a"].kinds == ()


def test_a_recipe_travels_between_processes(street):
    recipe = open_folder(
        street, "train", "lines,dots,boxes,keypoints,tags", labels_from=write(street, {"a": ["dots"]})
    )
    again = pickle.loads(pickle.dumps(recipe))
    for image_id in IDS:
        assert np.array_equal(again.sample(image_id).semantic, recipe.sample(image_id).semantic)


def test_the_command_packs_a_mixture_and_counts_it(street, tmp_path, capsys):
    file = write(street, {"a": ["lines", "dots", "tags"], "b": ["boxes"], "v": ["tags"], IDS[2]: ["tags"]})
    labels = "lines, dots,boxes,tags"
    asked = [
        "--labels",
        labels,
        "--labels-from",
        str(file),
        "--split",
        "train",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["pack", "folder", str(street), *asked, "--point-radius", "2"]) == 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest.labels == "lines,dots,boxes,tags"
    assert manifest.counts.kinds == {"boxes": 1, "dots": 1, "lines": 1, "tags": 2}
    assert manifest.counts.pixels_contradicted == 5 and manifest.counts.images_unlisted == (0, 0, 1)
    assert manifest.counts.images_tags_unknown == 1 and manifest.counts.images_tagged == (0, 1, 2)
    assert main(["verify", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(
    ("assigned", "seen"),
    [
        ({"zebra": ["lines"], "a": ["lines"]}, r"1 of its 2 image ids are in no split.*got zebra"),
        ({"a": ["lines", "sketches"]}, r"image a: not among the kinds.*got sketches.*from lines, dots"),
        ({"a": ["tags"]}, r"image a: not among the kinds.*got tags.*add it to the labels"),
        ({"a": "lines"}, r"image a: not a list of kinds"),
        ({"a": [1]}, r"image a: not a list of kinds"),
        (["a"], "not an object"),
    ],
)
def test_a_file_of_kinds_that_cannot_be_used_is_named(street, assigned, seen):
    with pytest.raises(DataError, match=seen) as raised:
        packed(street, "lines,dots", assigned)
    assert str(raised.value).startswith(str(street / "kinds.json"))


def test_a_file_of_kinds_has_to_be_there_and_kinds_to_be_named_once(street, tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json: no such file; write \{image id: \[KIND, "):
        open_folder(street, "train", "lines", labels_from=tmp_path / "nowhere.json")
    with pytest.raises(ConfigError, match=r"there twice \(got dots\)"):
        open_folder(street, "train", "dots,lines,dots")


@pytest.mark.parametrize(
    ("kind", "entry", "seen"),
    [
        ("boxes", [[1, 40, 0, 50, 9]], r"lies outside the image .*the image is 40×30"),
        ("boxes", [[1, 5, 5, 5, 9]], r"a box is empty \(got \[1, 5, 5, 5, 9\]\)"),
        ("boxes", [[1, 30, 0, 50, 9]], r"reaches beyond the image .*40×30"),
        ("boxes", [[3, 0, 0, 5, 9]], r"got 3\); use 0\.\.2"),
        ("boxes", [["cat", 0, 0, 5, 9]], r"ids, not names$"),
        ("boxes", [[1, 5, 5, 5, 9]], r"write \[class, x0, y0, x1, y1\]"),
        ("dots", [["cat", 3, 3]], r"ids, not names$"),
        ("dots", [[1, 40, 0]], r"point lies outside the image .*40×30"),
        ("keypoints", [[1, 0, 30]], r"point lies outside the image .*40×30"),
        ("keypoints", 7, "not a list of points"),
        ("tags", [3], r"tag is not in classes\.txt \(got 3\); use ids in 0\.\.2"),
        ("tags", [-1], "got -1"),
        ("tags", ["cat"], r"got cat\); write ids of classes\.txt, not names"),
        ("tags", [True], "got True"),
        ("tags", 1, "not a list of class ids"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named_with_file_and_image(root, kind, entry, seen):
    if kind == "keypoints":
        write_json(root / "weak/keypoints.json", {"b": [[1, 1, 1]]})
    entries = json.loads((root / f"weak/{kind}.json").read_text())
    write_json(root / f"weak/{kind}.json", {**entries, "b": entry})
    recipe = open_folder(root, "train", f"lines,{kind}")
    with pytest.raises(DataError, match=seen) as raised:
        recipe.sample("b")
    assert str(raised.value).startswith(f"{root}/weak/{kind}.json, image b: ")


@pytest.mark.parametrize("kind", ["boxes", "points", "keypoints", "tags"])
def test_a_file_of_empty_entries_is_what_its_name_says(root, kind):
    write_json(root / f"weak/{kind}.json", {"a": [], "b": []})
    sample = open_folder(root, "train", kind).sample("a")
    assert sample.tags == (() if kind in ("boxes", "tags") else None) and sample.kinds == (kind,)


def test_a_zero_byte_file_of_annotations_is_named(root):
    (root / "weak/boxes.json").write_bytes(b"")
    with pytest.raises(DataError, match=r"boxes\.json: cannot be read as JSON"):
        open_folder(root, "train", "boxes")


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK"])
def test_annotations_fit_images_of_every_colour_mode(root, mode):
    name = "a.png" if mode == "RGBA" else "a.jpg"
    (root / "images/a.jpg").unlink()
    Image.fromarray(image(0)).convert(mode).save(root / "images" / name)
    recipe = open_folder(root, "train", "boxes")
    sample = recipe.sample("a")
    assert sample.image.shape == (HEIGHT, WIDTH, 3) and sample.tags == (1,)
    with Image.open(io.BytesIO(recipe.jpeg(sample))) as packed_image:
        assert (packed_image.format, packed_image.mode) == ("JPEG", "RGB")


def test_marks_are_placed_on_the_image_as_it_is_shown(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "masks/a.png").unlink()
    Image.fromarray(image(0)).save(root / "images/a.jpg", exif=exif)
    for kind, entry in (("dots", [1, WIDTH - 1, 0]), ("boxes", [1, 0, 15, WIDTH, 30])):
        write_json(root / f"weak/{kind}.json", {"a": [entry]})
        with pytest.raises(DataError, match=r"the image is 30×40.*an EXIF orientation turned the image"):
            open_folder(root, "train", kind).sample("a")
    write_json(root / "weak/dots.json", {"a": [[1, 0, WIDTH - 1]]})
    assert open_folder(root, "train", "dots").sample("a").semantic[WIDTH - 1, 0] == 1


def test_annotations_of_no_image_and_kinds_that_no_image_has_are_told_when_packing(root, tmp_path, capsys):
    write_json(root / "weak/tags.json", {"a.jpg": [1], "b.jpg": [2], "t": [1]})
    (root / "._train.txt").write_bytes(b"\xff\xfe")
    asked = ["--labels", "dots,tags", "--split", "train", "--out", str(tmp_path / "out")]
    assert main(["pack", "folder", str(root), *asked]) == 0
    outcome = capsys.readouterr().err.splitlines()
    assert outcome.count("tags.json: 2 of its 3 ids are in no split, e.g. a.jpg, b.jpg") == 1
    assert outcome.count("train: no image has tags annotations") == 1
    write_json(root / "weak/tags.json", {"a": [1], "t": [1]})
    assert open_folder(root, "train", "dots,tags").notes == ()


def test_label_maps_of_no_image_are_told_when_packing(root):
    (root / "weak/lines/a.png").rename(root / "weak/lines/a.PNG")
    for name in ("masks/a.png", "masks/b.png", "weak/lines/c.png"):
        (root / name).rename((root / name).with_suffix(".jpg"))
    (root / "masks/day").mkdir()
    for name in ("z", "day/1", "day/2"):
        Image.fromarray(whole_mask(0)).save(root / f"masks/{name}.png")
    (root / "masks/day/.hidden").touch()
    assert open_folder(root, "train", "lines").notes == (
        "lines: 2 of its 3 files are no ID.png of a split, e.g. a.PNG, c.jpg",
        "masks: 5 of its 7 files are no ID.png of a split, e.g. a.jpg, b.jpg, day/1.png",
    )
    (root / "val.txt").write_text("t\nz\nday/1\nday/2\n")
    (masks,) = open_folder(root, "train", "masks").notes
    assert masks == "masks: 2 of its 7 files are no ID.png of a split, e.g. a.jpg, b.jpg"


def test_a_misspelt_kind_is_told_though_another_one_is_broken(root):
    (root / "weak/notes.json").write_text("{")
    with pytest.raises(DataError, match=r"no annotations of this kind \(got lnies\); did you mean lines\?"):
        open_folder(root, "train", "lnies")
    with pytest.raises(DataError, match=r"\(got note\); did you mean notes\?"):
        open_folder(root, "train", "note")


@pytest.mark.parametrize(
    ("entries", "seen"),
    [
        ({"a": [], "b": [[1, 2]], "c": [[1, 2, 3]]}, r"got clicks: \{'b': \[\[1, 2\]\]\}\); "),
        ({"a": {"x": 3}}, r"got clicks: \{'a': \{'x': 3\}\}\); "),
        ({"a": list(range(99))}, r"got clicks: \{'a': \[0, 1, 2, 3, 4, 5, \.\.\.\]\}\); "),
        ({"a": []}, r"got clicks: \{'a': \[\]\}\); "),
        ({}, r"got clicks: \{\}\); "),
    ],
)
def test_a_file_of_no_kind_is_shown_with_its_first_entry(root, entries, seen):
    write_json(root / "weak/clicks.json", entries)
    with pytest.raises(DataError, match=rf"not a kind of points, .*{seen}"):
        open_folder(root, "train", "clicks")


@pytest.mark.parametrize("labels_from", [False, True])
def test_an_image_that_is_listed_twice_is_named(root, labels_from):
    path = root / "kinds.json" if labels_from else root / "weak/dots.json"
    path.write_text('{"b": [], "a": [[1, 2, 3]], "a": []}')
    with pytest.raises(DataError, match=r"\.json: a name is there twice \(got a\); ") as raised:
        open_folder(root, "train", "dots", labels_from=path if labels_from else None)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize(
    ("labels", "options", "outcome"),
    [
        (
            "lines",
            ["--heat-low", "0.1"],
            ["--heat-low does nothing: no kind among --labels becomes heat maps"],
        ),
        (
            "lines,dots",
            ["--keypoint-sigma", "4", "--heat-high", "0.5"],
            ["--keypoint-sigma, --heat-high do nothing: no kind among --labels becomes heat maps"],
        ),
        (
            "dots",
            ["--heat-maps", "dots", "--point-radius", "3"],
            ["--point-radius does nothing: no kind among --labels becomes discs"],
        ),
        ("lines,tags", ["--boxes", "cam"], ["--boxes does nothing: no kind among --labels has boxes"]),
        ("boxes,dots", ["--boxes", "geometry", "--point-radius", "2"], []),
        ("dots", ["--heat-maps", "dots", "--heat-low", "0.1"], []),
        ("lines", [], []),
    ],
)
def test_options_that_concern_no_kind_are_told_and_stop_nothing(
    root, tmp_path, capsys, labels, options, outcome
):
    asked = ["--labels", labels, "--split", "train", "--out", str(tmp_path / "out"), *options]
    assert main(["pack", "folder", str(root), *asked]) == 0
    assert [line for line in capsys.readouterr().err.splitlines() if " nothing: " in line] == outcome


@pytest.mark.parametrize("listed", [True, False])
def test_a_kind_cannot_be_called_like_seeds_of_cam(root, listed):
    kind = root / "weak" / ("dots.json" if listed else "lines")
    kind.rename(kind.with_stem("cam"))
    with pytest.raises(DataError, match=r"can have this name \(got cam\); rename it under .*cam infer"):
        open_folder(root, "train", "cam")
    with pytest.raises(DataError, match=r"can be packed: (?!.*cam)"):
        open_folder(root, "train", "scribbles")


@pytest.mark.parametrize("out", ["", "images", "images/../images"])
def test_a_pack_is_not_written_into_the_folder_that_it_is_made_from(root, out, capsys):
    before = sorted(root.rglob("*"))
    asked = ["--labels", "dots", "--split", "train", "--out", str(root / out)]
    assert main(["pack", "folder", str(root), *asked]) == 2
    assert "--out (got" in capsys.readouterr().err and sorted(root.rglob("*")) == before
