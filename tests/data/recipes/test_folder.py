"""The folder recipe."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spml_dist.data.recipes.annotation_kinds import MarkSettings
from spml_dist.data.recipes.folder import open_folder
from spml_dist.errors import DataError
from tests.data.conftest import HEIGHT, WIDTH, image, whole_mask, write_json


def packed(root, labels, split="train", labels_from=None, **marks):
    recipe = open_folder(root, split, labels, MarkSettings(**marks), labels_from)
    return {sample.key: sample for sample in recipe.samples()}


def test_weak_maps_keep_their_labels_and_the_rest_is_unlabelled_whatever_the_mask_says(root):
    sample = packed(root, "lines")["a"]
    expected = np.full((HEIGHT, WIDTH), 254)
    expected[20:22, 10:30] = 1
    expected[3, 10:30] = 0
    assert np.array_equal(sample.semantic, expected)
    assert np.array_equal(sample.mask, whole_mask(0))


def test_masks_are_full_supervision_with_their_ignored_pixels(root):
    sample = packed(root, "masks")["b"]
    assert np.array_equal(sample.semantic, whole_mask(1))
    assert sample.tags == (2,)


def test_points_become_discs_of_the_radius(root):
    assert (packed(root, "dots", point_radius=0)["a"].semantic < 254).sum() == 2
    assert (packed(root, "dots", point_radius=2)["a"].semantic == 1).sum() == 13


def test_listed_tags_count_where_they_are_asked_for_without_the_background(root):
    write_json(root / "weak/tags.json", {"a": [2, 1], "b": [2, 0], "c": []})
    alone, beside = packed(root, "tags"), packed(root, "lines,tags")
    assert [alone[key].tags for key in "abcd"] == [(1, 2), (2,), (), None]
    assert [beside[key].tags for key in "abcd"] == [(1, 2), (2,), (1,), None]
    assert packed(root, "lines")["a"].tags == (1,)
    assert all((sample.semantic == 254).all() for sample in alone.values())


FLAGS = {
    "of the objects": {"a": [1, 0], "b": [0, 1], "c": [0, 0]},
    "of all classes": {"a": [0, 1, 0], "b": [1, 0, 1]},
    "as booleans": {"a": [True, False], "b": [False, True]},
    "as fractions": {"a": [1.0, 0.0], "b": [0.0, 1.0], "t": [1.0, 1.0]},
    "twice the same list": {"a": [0, 1, 1], "b": [0, 1, 1]},
}


@pytest.mark.parametrize("case", FLAGS)
def test_tags_as_0_or_1_for_each_class_are_refused(root, case):
    write_json(root / "weak/tags.json", FLAGS[case])
    with pytest.raises(DataError, match=r"tags\.json: tags are 0 or 1 for each of . classes, not class ids"):
        open_folder(root, "train", "lines,tags")


@pytest.mark.parametrize(
    ("tags", "seen"),
    [
        ([2, 1, 2], r"a tag is there twice \(got \[2, 1, 2\]\)"),
        ([2.0], r"got 2\.0\)"),
        ([True, 2], r"got True\)"),
    ],
)
def test_tags_that_are_no_ids_are_refused_by_name(root, tags, seen):
    write_json(root / "weak/tags.json", {"a": tags})
    with pytest.raises(DataError, match=rf"tags\.json, image a: .*{seen}; write the ids of the classes"):
        packed(root, "tags")


def test_the_background_and_one_class_in_one_order_are_ids(root):
    write_json(root / "weak/tags.json", {"a": [0, 1], "b": [0, 1], "c": [0]})
    assert [packed(root, "tags")[key].tags for key in "abc"] == [(1,), (1,), ()]


def test_in_a_file_of_points_and_boxes_the_name_decides_and_the_others_are_refused(root):
    write_json(root / "weak/boxes.json", {"a": [[1, 9, 7]], "b": [[2, 0, 0, 14, 10]]})
    recipe = open_folder(root, "train", "boxes")
    assert recipe.forms == {"boxes"} and recipe.sample("b").tags == (2,)
    with pytest.raises(DataError, match=r"image a: not a box \(got \[1, 9, 7\]\)"):
        recipe.sample("a")


def test_tags_come_from_the_labels(root):
    found = packed(root, "lines")
    assert (found["a"].tags, found["b"].tags, found["d"].tags) == ((1,), (2,), None)
    assert packed(root, "dots")["c"].tags is None


def test_labels_of_the_background_alone_leave_the_tags_unknown(root):
    write_json(root / "weak/dots.json", {"a": [[0, 5, 5]]})
    assert packed(root, "dots")["a"].tags is None


def test_a_whole_mask_without_objects_says_that_there_are_none(root):
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(root / "masks/a.png")
    Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(root / "masks/b.png")
    found = packed(root, "masks")
    assert found["a"].tags == () and found["b"].tags is None


@pytest.mark.parametrize(
    ("folder", "labels"), [("masks", "masks"), ("masks", "dots"), ("weak/lines", "lines")]
)
def test_maps_of_0_and_255_alone_are_told(root, folder, labels):
    def notes():
        return [note for note in open_folder(root, "train", labels).notes if "255" in note]

    assert notes() == []
    for path in (root / folder).glob("*.png"):
        Image.fromarray(np.where(np.array(Image.open(path)) % 255 > 0, 255, 0).astype(np.uint8)).save(path)
    (note,) = notes()
    assert note.startswith(f"{Path(folder).name}: the 3 of its 3 files") and "is 255 your object?" in note


def test_scribbles_between_which_0_is_everywhere_are_told(root):
    for path in (root / "weak/lines").glob("*.png"):
        drawn = np.array(Image.open(path))
        Image.fromarray(np.where(drawn == 255, 0, drawn).astype(np.uint8)).save(path)
    (note,) = [note for note in open_folder(root, "train", "lines").notes if "is 0 nobody's pixel?" in note]
    assert note.startswith("lines: in the 3 of its 3 files") and note.endswith("write 255 there")
    assert not any("nobody's" in note for note in open_folder(root, "train", "masks").notes)


def test_without_a_folder_of_images_nothing_is_looked_for(root):
    (root / "images").rename(root / "imgs")
    with pytest.raises(DataError, match=r"images: no such folder; put the images there"):
        open_folder(root, "train", "lines")


def test_names_are_found_in_either_form_of_unicode(root):
    name = "Bäume_café"
    written, shown = (unicodedata.normalize(form, name) for form in ("NFD", "NFC"))
    for path in (root / "images/a.jpg", root / "weak/lines/a.png", root / "masks/a.png"):
        path.rename(path.with_stem(written))
    (root / "train.txt").write_text(f"{shown}\nb\n", encoding="utf-8")
    write_json(root / "weak/tags.json", {written: [1]})
    write_json(root / "kinds.json", {written: ["lines", "tags"]})
    recipe = open_folder(root, "train", "lines,tags", labels_from=root / "kinds.json")
    sample = recipe.sample(shown)
    assert sample.tags == (1,) and sample.kinds == ("lines", "tags") and sample.mask is not None
    assert not [note for note in recipe.notes if "e.g. B" in note]
    assert recipe.jpeg(sample) == (root / f"images/{written}.jpg").read_bytes()


def test_an_annotation_in_both_forms_of_unicode_is_refused(root):
    write_json(root / "weak/tags.json", {"\u00e9": [1], "e\u0301": [2]})
    with pytest.raises(DataError, match=r"tags\.json: a name is there twice, in two forms of Unicode"):
        open_folder(root, "train", "tags")


def test_an_image_without_any_annotation_is_unlabelled(root):
    sample = packed(root, "lines")["d"]
    assert (sample.semantic == 254).all() and sample.tags is None and sample.mask is None


def test_a_split_nobody_annotated_can_be_packed_for_evaluation(root):
    folder = open_folder(root, "test", "lines")
    sample = folder.sample("t")
    assert not folder.is_annotated() and open_folder(root, "train", "lines").is_annotated()
    assert (sample.semantic == 254).all() and sample.tags is None
    assert np.array_equal(sample.mask, whole_mask(4))


def test_a_folder_without_masks_or_tags_is_enough(root):
    for path in root.glob("masks/*"):
        path.unlink()
    (root / "masks").rmdir()
    (root / "weak/tags.json").unlink()
    assert packed(root, "lines")["a"].mask is None
    with pytest.raises(DataError, match=r"can be packed: boxes, dots, lines$"):
        open_folder(root, "train", "masks")


@pytest.mark.parametrize("kind", ["line", "lnies", "", "stats", "..", "dots,line"])
def test_an_unknown_kind_is_answered_with_those_there_are(root, kind):
    with pytest.raises(DataError, match=r"can be packed: boxes, dots, lines, masks, tags$") as raised:
        open_folder(root, "train", kind)
    assert ("did you mean lines?" in str(raised.value)) == (kind in ("line", "lnies", "dots,line"))


def test_images_of_other_kinds_are_packed_as_jpeg(root):
    os.remove(root / "images/a.jpg")
    Image.fromarray(image(9)).convert("L").save(root / "images/a.png")
    folder = open_folder(root, "train", "lines")
    grey = folder.sample("a")
    assert grey.image.shape == (HEIGHT, WIDTH, 3) and folder.jpeg(grey)[:2] == b"\xff\xd8"
    assert folder.jpeg(folder.sample("b")) == (root / "images/b.jpg").read_bytes()


def test_ids_may_hold_dots_and_folders(root):
    (root / "images/day.1").mkdir()
    os.rename(root / "images/a.jpg", root / "images/day.1/a.b.jpg")
    (root / "train.txt").write_text("day.1/a.b\n")
    folder = open_folder(root, "train", "lines")
    (sample,) = folder.samples()
    assert sample.key == "day%2E1%2Fa%2Eb"
    assert folder.jpeg(sample) == (root / "images/day.1/a.b.jpg").read_bytes()


def test_label_and_image_of_different_sizes_are_refused_with_both_sizes(root):
    Image.fromarray(image(0, 20, 25)).save(root / "images/a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg.*25×20 and 40×30"):
        packed(root, "lines")


def test_labels_drawn_on_an_image_before_it_was_turned_are_refused(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image(0)).save(root / "images/a.jpg", exif=exif)
    with pytest.raises(DataError, match=r"a\.jpg.*EXIF.*30×40 and 40×30"):
        packed(root, "lines")


def test_which_of_several_kinds_has_another_size_is_said(root):
    Image.fromarray(np.zeros((20, 25), np.uint8)).save(root / "weak/lines/a.png")
    with pytest.raises(DataError, match=r"a\.jpg: image and lines differ in size \(got 40×30 and 25×20"):
        packed(root, "dots,lines")


@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        (lambda root: os.remove(root / "images/b.jpg"), "images/b: no image"),
        (lambda root: (root / "images/b.jpg").write_bytes(b""), r"b\.jpg.*zero bytes"),
        (lambda root: (root / "weak/lines/b.png").write_bytes(b""), r"lines/b\.png: cannot be decoded"),
        (lambda root: Image.new("L", (WIDTH, HEIGHT), 7).save(root / "masks/b.png"), r"masks/b\.png.*got 7"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(root, spoil, seen):
    spoil(root)
    with pytest.raises(DataError, match=seen):
        packed(root, "lines")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_points_that_are_no_object_by_image_are_refused(root, text):
    (root / "weak/dots.json").write_text(text)
    with pytest.raises(DataError, match=r"dots\.json"):
        open_folder(root, "train", "dots")


@pytest.mark.skipif("SPML_DATA" not in os.environ, reason="SPML_DATA names no folder of real data sets")
@pytest.mark.parametrize("kind", ["scribble30", "points1", "masks"])
def test_real_images_can_be_read(kind):
    folder = open_folder(Path(os.environ["SPML_DATA"]) / "gid15", "train", kind)
    for image_id in folder.ids[:4]:
        sample = folder.sample(image_id)
        assert sample.image.shape == (224, 224, 3) and sample.tags and (sample.semantic < 15).any()
