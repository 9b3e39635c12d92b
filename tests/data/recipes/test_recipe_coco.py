"""The coco recipe, on small files in the formats of COCO's instances and panoptic archives."""

from __future__ import annotations

import json
import os
import pickle
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from spml_dist.cli import main
from spml_dist.data.annotations.coco_masks import decode
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.format.verify import verify
from spml_dist.data.recipes.coco import open_coco
from spml_dist.errors import DataError
from tests.data.conftest import HEIGHT, WIDTH, write_json
from tests.data.conftest import image as random_image

BUSY, EMPTY = "000000000009", "000000000025"
CATEGORIES = [
    {"supercategory": "animal", "id": 17, "name": "cat"},
    {"supercategory": "person", "id": 1, "name": "person"},
    {"supercategory": "animal", "id": 18, "name": "dog"},
]
PERSON, CAT, DOG = 1, 2, 3
INSTANCES, PANOPTIC = "annotations/instances_val2017.json", "annotations/panoptic_val2017.json"


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[y0:y1, x0:x1] = 1
    return pixels


def runs(pixels: np.ndarray) -> dict:
    """Uncompressed run lengths, column by column from a run of zeros, as instances write crowds."""
    column_wise = pixels.ravel(order="F")
    ends = np.flatnonzero(np.diff(column_wise)) + 1
    counts = np.diff([0, *ends, column_wise.size]).tolist()
    return {"counts": counts if column_wise[0] == 0 else [0, *counts], "size": list(pixels.shape)}


def instance(number: int, image: int, category: int, segmentation, box: list[float], crowd: int = 0) -> dict:
    area = box[2] * box[3]
    outcome = {"id": number, "image_id": image, "category_id": category, "iscrowd": crowd, "area": area}
    return {**outcome, "bbox": box, "segmentation": segmentation}


def panoptic_png(path: Path, segments: np.ndarray) -> None:
    parts = [segments % 256, segments // 256 % 256, segments // 65536]
    Image.fromarray(np.stack(parts, axis=-1).astype(np.uint8)).save(path)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """val2017 of two images: one with a crowd, a dog and a cat before it; one without instances."""
    root = tmp_path / "coco"
    (root / "val2017").mkdir(parents=True)
    (root / "annotations/panoptic_val2017").mkdir(parents=True)
    images = [
        {"id": int(image_id), "file_name": f"{image_id}.jpg", "width": WIDTH, "height": HEIGHT}
        for image_id in (EMPTY, BUSY)
    ]
    for seed, image_id in enumerate((BUSY, EMPTY)):
        Image.fromarray(random_image(seed)).save(root / "val2017" / f"{image_id}.jpg", quality=90)
    annotations = [
        instance(1, 9, 17, [[12.0, 12.0, 18.0, 12.0, 18.0, 18.0, 12.0, 18.0]], [12.0, 12.0, 6.0, 6.0]),
        instance(2, 9, 18, [[10, 10, 30, 10, 30, 20, 10, 20], [32, 10, 36, 10, 36, 20]], [10, 10, 26, 10]),
        instance(3, 9, 1, runs(rectangle(0, 0, 20, 20)), [0, 0, 20, 20], crowd=1),
    ]
    write_json(
        root / INSTANCES, {"images": images, "annotations": annotations, "categories": CATEGORIES, "info": {}}
    )
    write_panoptic(root, images)
    return root


def write_panoptic(root: Path, images: list[dict]) -> None:
    segments = np.zeros((HEIGHT, WIDTH), np.int64)
    segments[:10], segments[10:20], segments[20:25] = 3226956, 259, 5
    panoptic_png(root / f"annotations/panoptic_val2017/{BUSY}.png", segments)
    panoptic_png(root / f"annotations/panoptic_val2017/{EMPTY}.png", np.full((HEIGHT, WIDTH), 65536))
    outcome = {"iscrowd": 0, "area": 400, "bbox": [0, 0, 40, 10]}
    of_busy = [{"id": 3226956, "category_id": 184, **outcome}, {"id": 259, "category_id": 17, **outcome}]
    of_empty = [{"id": 65536, "category_id": 184, **outcome}]
    annotations = [
        {
            "image_id": 9,
            "file_name": f"{BUSY}.png",
            "segments_info": [*of_busy, {"id": 5, "category_id": 1, **outcome}],
        },
        {"image_id": 25, "file_name": f"{EMPTY}.png", "segments_info": of_empty},
    ]
    categories = [{**category, "isthing": 1} for category in CATEGORIES]
    categories.append({"supercategory": "plant", "isthing": 0, "id": 184, "name": "tree-merged"})
    write_json(root / PANOPTIC, {"images": images, "annotations": annotations, "categories": categories})


def samples(coco, labels, kind="instances", **options):
    return {sample.key: sample for sample in open_coco(coco, "val2017", labels, kind, **options).samples()}


def test_classes_are_the_background_and_the_categories_by_their_ids(coco):
    recipe = open_coco(coco, "val2017", "masks")
    assert recipe.classes == ("background", "person", "cat", "dog") and recipe.background == 0
    assert recipe.ids == (BUSY, EMPTY)


def test_in_masks_small_instances_are_in_front_and_crowds_behind(coco):
    mask = samples(coco, "masks")[BUSY].semantic
    expected = rectangle(0, 0, 20, 20) * np.uint8(PERSON)
    expected[10:20, 10:30] = DOG
    expected[12:18, 12:18] = CAT
    triangle = mask[:, 31:]
    assert np.array_equal(mask[:, :31], expected[:, :31])
    assert set(np.unique(triangle).tolist()) == {0, DOG} and 10 < (triangle == DOG).sum() < 40


@pytest.mark.parametrize("said", ['"area": null, ', '"area": 0, ', ""])
def test_an_instance_without_an_area_is_as_large_as_its_outline(coco, said):
    expected = samples(coco, "masks")[BUSY].semantic
    file = coco / INSTANCES
    without = re.sub(r'"area": [0-9.]+, ', said, file.read_text())
    assert without != file.read_text()
    file.write_text(without)
    assert np.array_equal(samples(coco, "masks")[BUSY].semantic, expected)


def test_an_image_without_instances_is_known_to_show_none(coco):
    for labels in ("masks", "boxes", "tags"):
        sample = samples(coco, labels)[EMPTY]
        assert sample.tags == () and not sample.mask.any()
        assert (sample.semantic == (254 if labels == "tags" else 0)).all()


def test_boxes_label_the_background_outside_and_go_along(coco):
    found = samples(coco, "boxes")
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[:20, :20] = inside[10:20, 10:36] = True
    assert np.array_equal(found[BUSY].semantic, np.where(inside, 254, 0))
    drawn = ((CAT, 12, 12, 18, 18), (DOG, 10, 10, 36, 20), (PERSON, 0, 0, 20, 20))
    assert sorted(found[BUSY].boxes) == sorted(drawn) and found[EMPTY].boxes == ()
    assert found[BUSY].kinds == ("boxes",) and samples(coco, "tags")[BUSY].boxes is None


def test_boxes_by_geometry_label_their_middle_with_the_smaller_in_front(coco):
    sample = samples(coco, "boxes", boxes="geometry")[BUSY]
    assert sample.tags == (PERSON, CAT, DOG)
    assert (sample.semantic[20:] == 0).all() and (sample.semantic[:10, 20:] == 0).all()
    assert (
        sample.semantic[15, 15] == CAT and sample.semantic[15, 23] == DOG and sample.semantic[8, 8] == PERSON
    )
    assert sample.semantic[12, 12] == 254 and sample.semantic[1, 1] == 254


def test_tags_label_no_pixel_and_masks_go_along(coco):
    sample = samples(coco, "tags")[BUSY]
    assert (sample.semantic == 254).all() and sample.tags == (PERSON, CAT, DOG)
    assert np.array_equal(sample.mask, samples(coco, "masks")[BUSY].semantic)


def test_panoptic_segments_are_read_by_the_number_in_their_colour(coco):
    recipe = open_coco(coco, "val2017", "masks", "panoptic")
    assert recipe.classes == ("person", "cat", "dog", "tree-merged") and recipe.background is None
    found = samples(coco, "masks", "panoptic")
    mask = found[BUSY].semantic
    assert (mask[:10] == 3).all() and (mask[10:20] == 1).all() and (mask[20:25] == 0).all()
    assert (mask[25:] == 255).all()
    assert found[BUSY].tags == (0, 1, 3) and found[EMPTY].tags == (3,)


def test_panoptic_tags_are_the_classes_of_the_segments(coco):
    sample = samples(coco, "tags", "panoptic")[BUSY]
    assert (sample.semantic == 254).all() and sample.tags == (0, 1, 3)


@pytest.mark.parametrize(
    "segmentation",
    [
        runs(rectangle(5, 3, 9, 30)),
        runs(rectangle(0, 0, 7, 5)),
        {
            "counts": rle.encode(np.asfortranarray(rectangle(5, 3, 9, 30)))["counts"].decode(),
            "size": [30, 40],
        },
        [[5, 3, 9, 3, 9, 30, 5, 30]],
        [[5, 3, 7, 3, 7, 30, 5, 30], [7, 3, 9, 3, 9, 30, 7, 30], [1, 1, 2, 2]],
    ],
)
def test_polygons_and_both_forms_of_run_lengths_are_masks(segmentation):
    pixels = decode(segmentation, (HEIGHT, WIDTH), "a.json")
    expected = (
        rectangle(0, 0, 7, 5) if segmentation == runs(rectangle(0, 0, 7, 5)) else rectangle(5, 3, 9, 30)
    )
    assert pixels.dtype == bool and np.array_equal(pixels, expected)


def test_images_of_one_name_in_two_folders_are_not_taken_for_one(coco):
    for folder, image_id in (("a", BUSY), ("b", EMPTY)):
        (coco / "val2017" / folder).mkdir()
        (coco / f"val2017/{image_id}.jpg").rename(coco / f"val2017/{folder}/1.jpg")
        rewrite(coco / INSTANCES, f'"{image_id}.jpg"', f'"{folder}/1.jpg"')
    recipe = open_coco(coco, "val2017", "masks")
    assert recipe.ids == ("a/1", "b/1") and [sample.tags for sample in recipe.samples()] == [(1, 2, 3), ()]
    Image.fromarray(random_image(5)).save(coco / "val2017/a/1.png")
    rewrite(coco / INSTANCES, '"b/1.jpg"', '"a/1.png"')
    with pytest.raises(DataError, match=r"val2017\.json: two .* \(got a/1\.jpg and a/1\.png\); rename"):
        open_coco(coco, "val2017", "masks")
    rewrite(coco / INSTANCES, '"a/1.png"', '"b/1.jpg"')
    (coco / "val2017/b/1.jpg").rename(coco / "val2017/b/2.jpg")
    rewrite(coco / INSTANCES, '"b/1.jpg"', '"b/2.jpg"')
    assert open_coco(coco, "val2017", "masks").ids == ("1", "2")


def change(root: Path, kind: str = INSTANCES, **parts) -> None:
    """Put other images, annotations or categories into the file."""
    write_json(root / kind, json.loads((root / kind).read_text()) | parts)


def test_an_image_of_another_size_than_the_file_says_is_refused_with_both(coco):
    Image.fromarray(random_image(0, HEIGHT // 2, WIDTH // 2)).save(coco / f"val2017/{BUSY}.jpg")
    for labels, kind in (("masks", "instances"), ("boxes", "instances"), ("tags", "panoptic")):
        with pytest.raises(
            DataError, match=rf"image {BUSY}: drawn on .*got 40×30, the image is 20×15"
        ) as raised:
            samples(coco, labels, kind)
        assert "EXIF" not in str(raised.value)


def test_annotations_of_an_image_before_it_was_turned_are_refused(coco):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random_image(0)).save(coco / f"val2017/{BUSY}.jpg", exif=exif)
    for labels in ("masks", "boxes", "tags"):
        with pytest.raises(DataError, match=r"got 40×30, the image is 30×40\).*EXIF"):
            samples(coco, labels)
    # Where the file does not say the size, boxes and run lengths do.
    rewrite(coco / INSTANCES, f'"width": {WIDTH}, "height": {HEIGHT}', '"width": 0, "height": null')
    with pytest.raises(DataError, match=r"segmentation of another size \(got 40×30, not 30×40\).*EXIF"):
        samples(coco, "masks")
    change(coco, annotations=[instance(7, 9, 17, [], [10, 10, 26, 10])])
    with pytest.raises(DataError, match=r"reaches beyond .*the image is 30×40.*EXIF"):
        samples(coco, "boxes")


BOXES = {
    "beyond": ([-10, -5, 30, 20], "a box reaches beyond the image"),
    "negative": ([30, 20, -10, -9], "a box is empty: its corners are swapped or its size is negative"),
    "outside": ([300, 300, 20, 20], "a box lies outside the image"),
    "empty": ([20, 15, 0, 8], "a box is empty"),
    "shares": ([0.2, 0.3, 0.4, 0.5], r"boxes are shares of the image \(0\.\.1\)"),
}


@pytest.mark.parametrize("case", BOXES)
def test_boxes_that_do_not_fit_their_image_are_refused_by_name(coco, case):
    box, seen = BOXES[case]
    change(coco, annotations=[instance(7, 9, 17, [[12, 12, 18, 12, 18, 18]], box)])
    with pytest.raises(DataError, match=rf"image {BUSY}: {seen}.*got \[{box[0]},.*40×30"):
        samples(coco, "boxes")
    assert samples(coco, "tags")[BUSY].tags == samples(coco, "masks")[BUSY].tags == (CAT,)


def test_boxes_less_than_a_pixel_over_the_border_are_cut(coco):
    change(coco, annotations=[instance(7, 9, 17, [], [-1e-14, 4.5, 40.00000000000003, 26.2])])
    assert samples(coco, "boxes")[BUSY].boxes == ((CAT, 0, 4.5, WIDTH, HEIGHT),)


@pytest.mark.parametrize(
    ("segmentation", "fault"),
    [
        ([], "no segmentation"),
        (None, "no segmentation"),
        ([[]], "no segmentation"),
        ([12, 12, 18, 12, 18, 18], "one polygon without the brackets"),
        ([[[12, 12], [18, 12], [18, 18]]], "points as pairs"),
        ([["12", 12, 18, 12, 18, 18]], "polygons of other than numbers"),
        ({"size": [30, 40]}, "run lengths without counts"),
        ("absent", "no segmentation"),
    ],
)
def test_boxes_and_tags_need_no_outlines(coco, segmentation, fault):
    outcome = instance(7, 9, 17, segmentation, [12, 12, 6, 6])
    if segmentation == "absent":
        del outcome["segmentation"]
    change(coco, annotations=[outcome, instance(8, 9, 18, [[1, 1, 9, 1, 9, 9]], [1, 1, 8, 8])])
    for labels in ("boxes", "tags"):
        recipe = open_coco(coco, "val2017", labels)
        sample = recipe.sample(BUSY)
        assert sample.mask is None and sample.tags == (CAT, DOG)
        assert len(recipe.notes) == 1 and "1 of its 2 annotations have no outline" in recipe.notes[0]
        assert f"annotation 7 of {BUSY}: {fault}" in recipe.notes[0] and recipe.sample(EMPTY).mask is not None
    if segmentation == "absent":
        with pytest.raises(DataError, match="annotations without segmentation"):
            open_coco(coco, "val2017", "masks")
    else:
        with pytest.raises(DataError, match=rf"annotation 7: not a segmentation of COCO \(got {fault}"):
            samples(coco, "masks")


def test_polygons_that_enclose_nothing_are_left_out_and_told(coco):
    change(
        coco,
        annotations=[
            instance(7, 9, 17, [[12, 12, 18, 12]], [12, 12, 6, 6]),
            instance(8, 9, 18, [[1, 1, 9, 1], [1, 1, 9, 1, 9, 9, 1, 9]], [1, 1, 8, 8]),
        ],
    )
    recipe = open_coco(coco, "val2017", "masks")
    sample = recipe.sample(BUSY)
    assert set(np.unique(sample.semantic)) == {0, DOG} and sample.tags == (CAT, DOG)
    (note,) = recipe.notes
    assert "1 of its 2 annotations are polygons of fewer than three points" in note and f"7 of {BUSY}" in note
    assert samples(coco, "boxes")[BUSY].mask is not None


@pytest.mark.parametrize(
    ("polygon", "seen"),
    [
        ([52, 12, 58, 12, 58, 18], "a polygon lies outside the image"),
        ([12, 12, 180, 12, 180, 18], r"a polygon reaches far beyond the image \(got x 180, y 12\)"),
        ([12, 12, float("nan"), 12, 18, 18], r"not a segmentation of COCO \(got a point that is no number\)"),
        ([12, 12, 10**400, 12, 18, 18], "not a segmentation of COCO"),
        ([0.1, 0.1, 0.5, 0.1, 0.5, 0.9], r"a polygon of shares of the image \(0\.\.1\)"),
    ],
)
def test_polygons_that_do_not_fit_their_image_are_refused_by_name(coco, polygon, seen):
    change(coco, annotations=[instance(7, 9, 17, [polygon], [12, 12, 6, 6])])
    with pytest.raises(DataError, match=f"image {BUSY}, annotation 7: {seen}"):
        samples(coco, "masks")


def test_run_lengths_that_fill_less_than_the_image_are_refused(coco):
    text = rle.encode(np.asfortranarray(rectangle(5, 3, 9, 30)))["counts"].decode()
    for counts in (text[:-3], "", "~~~", "oooo"):
        change(coco, annotations=[instance(7, 9, 17, {"counts": counts, "size": [30, 40]}, [1, 1, 9, 9])])
        with pytest.raises(DataError, match="annotation 7: not a segmentation of COCO"):
            samples(coco, "masks")


@pytest.mark.parametrize("name", ["background", "Background", "_background_"])
def test_a_category_called_background_is_the_background(coco, name):
    others = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    change(coco, categories=[{"id": 17, "name": name}, *others])
    recipe = open_coco(coco, "val2017", "masks")
    assert recipe.classes == ("background", "person", "dog")
    sample = recipe.sample(BUSY)
    assert sample.tags == (1, 2) and (sample.semantic[12:18, 12:18] == 0).all()
    assert samples(coco, "tags")[BUSY].tags == (1, 2)
    with pytest.raises(DataError, match=rf"image {BUSY}: a box of the background"):
        samples(coco, "boxes")


@pytest.mark.parametrize(
    ("categories", "seen"),
    [
        (
            [{"id": 1, "name": "cat"}, {"id": 1, "name": "box"}],
            r"a category id is there twice \(got 1 is cat and box\)",
        ),
        (
            [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat "}],
            r"two categories of one name \(got cat: ids 1, 2\)",
        ),
        ([{"id": 1, "name": "é"}, {"id": 2, "name": "e\u0301"}], "two categories of one name"),
        ([{"id": 0, "name": "background"}, {"id": 2, "name": "Background"}], "two categories of one name"),
        ([{"id": 1, "name": " "}], "category 1: name"),
        ([{"id": True, "name": "cat"}], "id of category"),
        ([{"name": "cat"}], "id of category"),
        (["cat"], "categories are no list of objects"),
    ],
)
def test_categories_that_are_no_classes_of_their_own_are_refused(coco, categories, seen):
    change(coco, categories=categories, annotations=[])
    with pytest.raises(DataError, match=rf"instances_val2017\.json: .*{seen}") as raised:
        open_coco(coco, "val2017", "masks")
    assert raised.value.remedy


def test_ids_and_names_may_be_digits_as_numbers_or_text(coco):
    content = json.loads((coco / INSTANCES).read_text())
    images = [image | {"id": f"{image['id']:012d}"} for image in content["images"]]
    annotations = [each | {"image_id": BUSY, "category_id": "a"} for each in content["annotations"]]
    change(coco, images=images, annotations=annotations, categories=[{"id": "a", "name": 7}])
    recipe = open_coco(coco, "val2017", "tags")
    assert recipe.classes == ("background", "7") and recipe.sample(BUSY).tags == (1,)


@pytest.mark.parametrize(
    ("images", "annotations", "seen"),
    [
        (
            [("000123", "a.jpg")],
            [123],
            r'annotation 0 is of image 123, which .*images has "000123": write both alike',
        ),
        ([(1, "a.jpg")], [1, 99], r"annotation 1 is of image 99, which .*\(got 1 such of 2 annotations\)"),
        ([(1, "a.jpg"), (1, "a.jpg")], [1], r"image 1: .*\(got a\.jpg and a\.jpg\); list it once"),
        (
            [(1, "a.jpg"), (2, "a.jpg")],
            [1],
            r"two images of one id \(got a\.jpg and a\.jpg\).*list it once",
        ),
        ([(1, 7)], [1], r"image 1: file_name \(got 7\)"),
        ([(None, "a.jpg")], [], "id of image"),
    ],
)
def test_images_and_annotations_that_do_not_go_together_are_named(coco, images, annotations, seen):
    Image.fromarray(random_image(0)).save(coco / "val2017/a.jpg")
    outcome = [instance(n, image, 17, [], [1, 1, 9, 9]) for n, image in enumerate(annotations)]
    change(coco, images=[{"id": id_, "file_name": file} for id_, file in images], annotations=outcome)
    with pytest.raises(DataError, match=seen):
        open_coco(coco, "val2017", "tags")


def test_a_category_id_of_another_type_is_told(coco):
    rewrite(coco / INSTANCES, '"category_id": 17', '"category_id": "17"')
    with pytest.raises(
        DataError, match=r'unknown category \(got "17"\); annotation 1: use .* has: 1, 17, 18'
    ):
        samples(coco, "tags")


def test_images_are_found_below_folders_that_windows_writes_and_in_either_spelling(coco):
    name = "Bäume é"
    (coco / "val2017/day").mkdir()
    os.rename(coco / f"val2017/{BUSY}.jpg", coco / f"val2017/day/{BUSY}.jpg")
    os.rename(coco / f"val2017/{EMPTY}.jpg", coco / f"val2017/{unicodedata.normalize('NFD', name)}.jpg")
    content = (coco / INSTANCES).read_text().replace(f'"{BUSY}.jpg"', f'"day\\\\{BUSY}.jpg"')
    (coco / INSTANCES).write_text(content.replace(f'"{EMPTY}.jpg"', f'"{name}.jpg"'))
    recipe = open_coco(coco, "val2017", "masks")
    assert [unicodedata.normalize("NFC", each) for each in recipe.ids] == [BUSY, name]
    assert [sample.tags for sample in recipe.samples()] == [(1, 2, 3), ()]


def categories(root: Path, kind: str, number: int) -> None:
    content = json.loads((root / kind).read_text())
    known = len(content["categories"])
    outcome = [{"id": 1000 + each, "name": f"class {each}"} for each in range(known, number)]
    write_json(root / kind, content | {"categories": [*content["categories"], *outcome]})


@pytest.mark.parametrize(
    ("kind", "file", "most"), [("instances", INSTANCES, 253), ("panoptic", PANOPTIC, 254)]
)
def test_so_many_categories_fit_into_8_bits(coco, kind, file, most):
    categories(coco, file, most)
    assert len(open_coco(coco, "val2017", "masks", kind).classes) == 254
    categories(coco, file, most + 1)
    with pytest.raises(DataError, match=rf"{kind}_.*\(got {most + 1} categories\); keep {most} of them"):
        open_coco(coco, "val2017", "masks", kind)


def test_a_recipe_travels_between_processes(coco):
    recipe = pickle.loads(pickle.dumps(open_coco(coco, "val2017", "boxes")))
    assert np.array_equal(recipe.sample(BUSY).semantic, samples(coco, "boxes")[BUSY].semantic)


@pytest.mark.parametrize("kind", ["instances", "panoptic"])
def test_the_command_packs_a_split_that_verifies(coco, tmp_path, kind):
    out = tmp_path / "out"
    arguments = [
        str(coco),
        "--labels",
        "masks",
        "--split",
        "val2017",
        "--annotations",
        kind,
        "--out",
        str(out),
    ]
    assert main(["pack", "coco", *arguments]) == 0
    manifest = read_manifest(out)
    name = {"instances": "coco-val2017", "panoptic": "coco-panoptic-val2017"}[kind]
    assert (manifest.name, manifest.samples) == (name, 2) and verify(out)["problems"] == []


def test_the_help_says_what_to_download_from_where(capsys):
    assert main(["pack", "coco", "--help"]) == 0
    printed = capsys.readouterr().out
    for text in ("images.cocodataset.org", "panoptic_annotations_trainval2017.zip", "examples:"):
        assert text in printed


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def keep_one_annotation(path: Path) -> None:
    content = json.loads(path.read_text())
    write_json(path, content | {"annotations": content["annotations"][:1]})


BAD = {
    "unknown labels": ("dots", "instances", lambda root: None, "dots of instances.*masks, boxes, tags"),
    "boxes of stuff": ("boxes", "panoptic", lambda root: None, "boxes of panoptic.*take boxes of instances"),
    "no images": (
        "masks",
        "instances",
        lambda root: os.rename(root / "val2017", root / "x"),
        "val2017: no such folder.*zip",
    ),
    "half of the images": (
        "masks",
        "instances",
        lambda root: os.remove(root / f"val2017/{EMPTY}.jpg"),
        r"instances_val2017\.json: 1 of its 2.*025\.jpg.*unpack",
    ),
    "no annotations": (
        "masks",
        "instances",
        lambda root: os.remove(root / INSTANCES),
        r"no such file; unpack annotations_trainval2017\.zip",
    ),
    "truncated annotations": (
        "masks",
        "instances",
        lambda root: truncate(root / INSTANCES),
        "cannot be read as JSON.*download",
    ),
    "captions": (
        "masks",
        "instances",
        lambda root: rewrite(root / INSTANCES, '"segmentation"', '"caption"'),
        "without segmentation",
    ),
    "another JSON": (
        "tags",
        "instances",
        lambda root: write_json(root / INSTANCES, {"a": 1}),
        "holds no images",
    ),
    "annotations of another split": (
        "tags",
        "instances",
        lambda root: rewrite(root / INSTANCES, '"image_id": 9', '"image_id": 8'),
        r"annotation 1 is of image 8, which images does not list \(got 3 such of 3 annotations\)",
    ),
    "unknown category": (
        "tags",
        "instances",
        lambda root: rewrite(root / INSTANCES, '"category_id": 17', '"category_id": 99'),
        r"image 000000000009: unknown category \(got 99\)",
    ),
    "damaged box": (
        "boxes",
        "instances",
        lambda root: rewrite(root / INSTANCES, "[10, 10, 26, 10]", "[10, 10, 26]"),
        r"annotation 2: bbox \(got \[10, 10, 26\]\)",
    ),
    "a category without a name": (
        "masks",
        "instances",
        lambda root: rewrite(root / INSTANCES, ', "name": "cat"', ""),
        r"instances_val2017\.json: category 17: name \(got .*\); give every category",
    ),
    "an area that is a word": (
        "masks",
        "instances",
        lambda root: rewrite(root / INSTANCES, '"area": 400', '"area": "large"'),
        r"instances_val2017\.json: annotation 3: area \(got \"large\"\); write the pixels",
    ),
    "an image's name that is too long for a file": (
        "tags",
        "instances",
        lambda root: rewrite(root / INSTANCES, f'"{EMPTY}.jpg"', f'"{EMPTY * 30}.jpg"'),
        r"instances_val2017\.json: 1 of its 2 images have no image",
    ),
    "such a name with other letters": (
        "tags",
        "instances",
        lambda root: rewrite(root / INSTANCES, f'"{EMPTY}.jpg"', f'"é\\\\{EMPTY * 30}.jpg"'),
        r"instances_val2017\.json: 1 of its 2 images have no image",
    ),
    "two images of one number": (
        "tags",
        "instances",
        lambda root: rewrite(root / INSTANCES, '"id": 25', '"id": 9'),
        r"two images of one id \(got 000000000025\.jpg and 000000000009\.jpg\)",
    ),
    "damaged runs": (
        "masks",
        "instances",
        lambda root: rewrite(root / INSTANCES, '"counts": [0, 20', '"counts": [0, 2000'),
        "annotation 3: not a segmentation of COCO",
    ),
    "runs of another size": (
        "masks",
        "instances",
        lambda root: rewrite(root / INSTANCES, '"size": [30, 40]', '"size": [40, 30]'),
        "annotation 3: a segmentation of another size.*30×40, not 40×30",
    ),
    "no polygon": (
        "masks",
        "instances",
        lambda root: rewrite(root / INSTANCES, "[[12.0, 12.0, 18.0, 12.0, 18.0, 18.0, 12.0, 18.0]]", "[]"),
        r"annotation 1: not a segmentation of COCO \(got no segmentation\).*--labels boxes or tags",
    ),
    "no panoptic PNG": (
        "masks",
        "panoptic",
        lambda root: os.remove(root / f"annotations/panoptic_val2017/{BUSY}.png"),
        r"009\.png: no such file.*zip",
    ),
    "truncated panoptic PNG": (
        "tags",
        "panoptic",
        lambda root: truncate(root / f"annotations/panoptic_val2017/{BUSY}.png"),
        r"009\.png: cannot be decoded",
    ),
    "image without segments": (
        "masks",
        "panoptic",
        lambda root: keep_one_annotation(root / PANOPTIC),
        f"{EMPTY}: no panoptic annotation",
    ),
    "image with two lists of segments": (
        "masks",
        "panoptic",
        lambda root: rewrite(root / PANOPTIC, '"image_id": 25', '"image_id": 9'),
        rf"{BUSY}: annotated twice \(got 2 annotations\)",
    ),
    "segment that is there twice": (
        "masks",
        "panoptic",
        lambda root: rewrite(root / PANOPTIC, '"id": 259,', '"id": 5,'),
        r"image 9: a segment is there twice \(got 5\)",
    ),
    "segment without a number": (
        "masks",
        "panoptic",
        lambda root: rewrite(root / PANOPTIC, '"segments_info": [{"id"', '"segments_info": [{"number"'),
        "image 9: segments_info.*without id",
    ),
    "instances as panoptic": (
        "masks",
        "panoptic",
        lambda root: (root / PANOPTIC).write_bytes((root / INSTANCES).read_bytes()),
        "without file_name, segments_info.*panoptic_annotations",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_with_what_to_do(coco, case):
    labels, kind, spoil, seen = BAD[case]
    spoil(coco)
    with pytest.raises(DataError, match=seen) as raised:
        list(open_coco(coco, "val2017", labels, kind).samples())
    assert raised.value.remedy
