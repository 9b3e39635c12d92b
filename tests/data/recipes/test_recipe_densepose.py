"""The densepose recipe, on small files in the format of DensePose-COCO."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from spml_dist.cli import main
from spml_dist.data.annotations.keypoints import HeatMap
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.format.verify import verify
from spml_dist.data.recipes.densepose import CLASSES, open_densepose
from spml_dist.errors import DataError
from tests.data.conftest import write_json
from tests.data.recipes.test_recipe_coco import truncate

HEIGHT, WIDTH = 120, 160
TORSO, HEAD = 1, 14
DRAWN, CROWDED = "COCO_val2014_000000000042", "COCO_val2014_000000000073"
FILE = "annotations/densepose_coco_2014_minival.json"


def runs(pixels: np.ndarray) -> dict:
    encoded = rle.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return {"counts": encoded["counts"].decode(), "size": encoded["size"]}


def parts() -> list:
    """14 masks in a square of 256: the head in the upper quarter, a torso with a hole at its middle below."""
    head, torso = np.zeros((2, 256, 256), bool)
    head[:64] = True
    torso[64:] = True
    torso[130:190, 96:160] = False
    masks: list = [[] for _ in CLASSES[1:]]
    masks[TORSO - 1], masks[HEAD - 1] = runs(torso), runs(head)
    return masks


def person(number: int, image: int, box: list[float], drawn: bool) -> dict:
    outcome = {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": box,
        "num_keypoints": 9,
    }
    x, y, width, height = box
    outline = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    surface = {"dp_I": [2.0], "dp_U": [0.5], "dp_V": [0.5], "dp_x": [12.0], "dp_y": [80.0]}
    return {**outcome, "segmentation": outline, **({"dp_masks": parts(), **surface} if drawn else {})}


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """minival2014 of two images: one person drawn part by part; another beside whom one is not."""
    root = tmp_path / "coco"
    (root / "val2014").mkdir(parents=True)
    (root / "annotations").mkdir()
    images = [
        {"id": int(name[-12:]), "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT}
        for name in (DRAWN, CROWDED)
    ]
    for name in (DRAWN, CROWDED):
        Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(root / f"val2014/{name}.jpg")
    annotations = [
        person(1, 42, [20.5, 20.0, 32.0, 64.9], True),
        person(2, 73, [10.0, 40.0, 32.0, 80.0], True),
        person(3, 73, [120.0, 10.0, 30.0, 40.0], False),
    ]
    categories = [{"supercategory": "person", "id": 1, "name": "person"}]
    write_json(root / FILE, {"images": images, "annotations": annotations, "categories": categories})
    return root


def write_people(people: Path, drawn: list[dict]) -> None:
    content = json.loads((people / FILE).read_text())
    write_json(people / FILE, content | {"annotations": drawn})


def packed(people, labels, name=DRAWN, **options):
    return open_densepose(people, "minival2014", labels, **options).sample(name)


def test_parts_are_scaled_from_their_square_into_the_persons_box(people):
    sample = packed(people, "masks")
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[20:36, 20:52], expected[36:84, 20:52] = HEAD, TORSO
    hole = sample.semantic[50:70, 30:42]
    assert (hole == 0).any() and set(np.unique(hole).tolist()) == {0, TORSO}
    assert (sample.semantic != expected).sum() == (sample.semantic[36:84, 20:52] == 0).sum() < 200
    assert sample.tags == (TORSO, HEAD) and np.array_equal(sample.mask, sample.semantic)


def test_a_person_less_than_a_pixel_over_the_border_is_cut_there(people):
    write_people(people, [person(1, 73, [10.0, 40.0, 32.0, 80.9], True)])
    sample = packed(people, "masks", CROWDED)
    assert (sample.semantic[40:60, 10:42] == HEAD).all() and sample.semantic[119, 12] == TORSO


def test_where_people_overlap_the_smaller_is_in_front_whatever_their_order(people):
    small, large = person(1, 42, [50, 40, 20, 40], True), person(2, 42, [40, 20, 60, 80], True)
    for drawn in ([small, large], [large, small]):
        write_people(people, drawn)
        semantic = packed(people, "masks").semantic
        assert (semantic[40:50, 50:70] == HEAD).all() and semantic[45, 45] == TORSO


@pytest.mark.parametrize(
    ("box", "seen"),
    [
        ([WIDTH + 5, 20, 30, 40], "lies outside the image"),
        ([WIDTH, HEIGHT, 9, 9], "lies outside the image"),
        ([10, 40, 32, 100], "reaches beyond the image"),
        ([60, 50, -40, -35], "its size is negative"),
        ([0.1, 0.2, 0.3, 0.4], "shares of the image"),
    ],
)
def test_a_person_whose_box_does_not_fit_the_image_is_refused_by_name(people, box, seen):
    write_people(people, [person(1, 42, box, True), person(2, 42, [40, 20, 60, 80], True)])
    for labels in ("masks", "points"):
        with pytest.raises(DataError, match=rf"{DRAWN}, annotation 1: .*{seen}"):
            packed(people, labels)


def test_an_image_of_another_size_than_the_file_says_is_refused_with_both(people):
    Image.new("RGB", (WIDTH // 2, HEIGHT // 2)).save(people / f"val2014/{DRAWN}.jpg")
    with pytest.raises(DataError, match=rf"{DRAWN}: drawn on .* \(got 160×120, the image is 80×60\)"):
        packed(people, "points")


def test_people_whose_parts_nobody_drew_are_ignored_and_leave_the_tags_unknown(people):
    sample = packed(people, "masks", CROWDED)
    assert (sample.semantic[10:50, 120:150] == 255).all() and (sample.semantic == 255).sum() == 40 * 30
    assert sample.tags is None
    assert (packed(people, "points", CROWDED).semantic[10:50, 120:150] == 254).all()


def test_points_lie_on_their_part_at_its_centre(people):
    semantic = packed(people, "points", point_radius=0).semantic
    ((row, column),) = np.argwhere(semantic == HEAD).tolist()
    assert abs(row - 27.5) <= 1 and abs(column - 35.5) <= 1
    ((row, column),) = np.argwhere(semantic == TORSO).tolist()
    torso = np.argwhere(packed(people, "masks").semantic == TORSO)
    from_centre = np.linalg.norm(torso - torso.mean(axis=0), axis=1)
    at = (torso == (row, column)).all(axis=1)
    assert from_centre[at] == from_centre.min() > 1


def test_background_is_labelled_far_from_every_point_and_the_rest_unlabelled(people):
    sample = packed(people, "points")
    points = np.argwhere((sample.semantic == HEAD) | (sample.semantic == TORSO))
    background = np.argwhere(sample.semantic == 0)
    apart = np.linalg.norm(background[:, None] - points[None], axis=-1).min()
    assert 0.25 * np.hypot(HEIGHT, WIDTH) - 7 < apart
    assert (sample.semantic == 254).sum() > 1000 and len(background) > 1000
    assert sample.tags == (TORSO, HEAD)
    assert not packed(people, "masks").semantic[sample.semantic == 0].any()


def test_keypoints_are_heat_maps_around_the_same_centres(people):
    centres = packed(people, "points", point_radius=0).semantic
    heat = HeatMap(sigma=8.0, high=0.6, low=0.1)
    sample = packed(people, "keypoints", heat=heat)
    hottest = np.zeros((HEIGHT, WIDTH))
    for part in (HEAD, TORSO):
        ((row, column),) = np.argwhere(centres == part)
        rows, columns = np.ogrid[:HEIGHT, :WIDTH]
        warm = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * 8.0**2))
        assert ((sample.semantic == part) == (warm >= 0.6)).all()  # these two are too far apart to meet
        hottest = np.maximum(hottest, warm)
    assert ((sample.semantic == 0) == (hottest < 0.1)).all()
    assert sample.tags == (TORSO, HEAD) and sample.kinds == ("keypoints",)


def test_people_whose_parts_nobody_drew_are_no_background_of_keypoints(people):
    semantic = packed(people, "keypoints", CROWDED, heat=HeatMap(sigma=8.0)).semantic
    assert (semantic[10:50, 120:150] == 254).all() and (semantic == 0).any()


def test_an_image_without_a_drawn_person_is_unlabelled(people):
    text = (people / FILE).read_text()
    (people / FILE).write_text(text.replace('"image_id": 42', '"image_id": 73'))
    sample = packed(people, "points")
    assert (sample.semantic == 254).all() and sample.tags is None and sample.kinds == ()


def test_a_recipe_travels_between_processes(people):
    recipe = pickle.loads(pickle.dumps(open_densepose(people, "minival2014", "points")))
    assert np.array_equal(recipe.sample(DRAWN).semantic, packed(people, "points").semantic)


def test_the_command_packs_a_split_that_verifies(people, tmp_path):
    out = tmp_path / "out"
    arguments = [str(people), "--labels", "points", "--split", "minival2014", "--out", str(out)]
    assert main(["pack", "densepose", *arguments]) == 0
    manifest = read_manifest(out)
    assert (manifest.name, manifest.samples, manifest.classes) == ("densepose-minival2014", 2, CLASSES)
    assert verify(out)["problems"] == []


def test_the_help_says_what_to_download_from_where(capsys):
    assert main(["pack", "densepose", "--help"]) == 0
    printed = capsys.readouterr().out
    for text in ("images.cocodataset.org", "dl.fbaipublicfiles.com/densepose", "minival2014", "examples:"):
        assert text in printed


def drop_parts(root: Path) -> None:
    text = (root / FILE).read_text()
    (root / FILE).write_text(text.replace("dp_masks", "masks"))


def drop_a_part(root: Path) -> None:
    text = (root / FILE).read_text()
    (root / FILE).write_text(text.replace("[], [], ", "[], ", 1))


def damage_runs(root: Path) -> None:
    text = (root / FILE).read_text()
    (root / FILE).write_text(text.replace('"size": [256, 256]', '"size": [25, 256]'))


@pytest.mark.parametrize(
    ("split", "spoil", "seen"),
    [
        ("val2014", lambda root: None, "no such split.*minival2014"),
        ("train2014", lambda root: None, r"train2014: no such folder.*train2014\.zip"),
        ("minival2014", lambda root: os.remove(root / FILE), r"minival\.json: no such file; put DensePose"),
        ("minival2014", lambda root: truncate(root / FILE), "cannot be read as JSON.*download"),
        ("minival2014", drop_parts, r"minival\.json: no annotation has dp_masks"),
        ("minival2014", drop_a_part, "annotation 1: dp_masks are not 14 parts"),
        ("minival2014", damage_runs, "annotation 1: (not a segmentation|a segmentation of another size)"),
        ("minival2014", lambda root: os.remove(root / f"val2014/{DRAWN}.jpg"), r"1 of its 2.*042\.jpg"),
        ("minival2014", lambda root: truncate(root / f"val2014/{DRAWN}.jpg"), r"042\.jpg: cannot be decoded"),
    ],
)
def test_bad_input_is_named_with_what_to_do(people, split, spoil, seen):
    spoil(people)
    with pytest.raises(DataError, match=seen) as raised:
        list(open_densepose(people, split, "points").samples())
    assert raised.value.remedy
