"""classes.txt, meta.json and the split files."""

from __future__ import annotations

import json

import pytest

from spml_dist.data.recipes.folder_layout import read_background, read_classes, read_ids, read_split
from spml_dist.errors import DataError


def test_classes_are_names_by_id_in_any_order(tmp_path):
    (tmp_path / "classes.txt").write_text("1 traffic light\n\n0 road\n")
    assert read_classes(tmp_path) == ("road", "traffic light")


def test_any_white_space_parts_id_and_name_of_a_class(tmp_path):
    (tmp_path / "classes.txt").write_text("0\tstreet and road\n1  \t car \n")
    assert read_classes(tmp_path) == ("street and road", "car")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("0 road\n2 car\n", "no 1"),
        ("1 road\n", "no 0"),
        ("", "0 classes"),
        ("0 road\n0 car\n", "line 2.*twice"),
        ("0 road\n1 road\n", "line 2.*twice"),
        ("road 0\n", "line 1.*not a class"),
        ("0\n", "line 1.*not a class"),
        ("00 road\n0 car\n", "line 2.*twice"),
        ("0 caf\u00e9\n1 cafe\u0301\n", "line 2.*twice"),
        ("999999999 road\n", "no 0 among 1 classes"),
        ("9" * 5000 + " road\n", "line 1.*not a class"),
        ("\u0661 road\n", "line 1.*not a class"),
        ("".join(f"{i} c{i}\n" for i in range(255)), "255 classes"),
    ],
)
def test_classes_with_gaps_repetitions_or_other_lines_are_refused(tmp_path, text, seen):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=rf"classes\.txt.*{seen}"):
        read_classes(tmp_path)


def test_a_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"classes\.txt: cannot be read"):
        read_classes(tmp_path)


@pytest.mark.parametrize(
    ("meta", "background"), [({"background": 1}, 1), ({"background": None, "ignore": 255}, None)]
)
def test_meta_names_the_background(tmp_path, meta, background):
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    assert read_background(tmp_path, ("road", "car")) == background


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (None, "no such file; write"),
        ("{", "cannot be read"),
        ("[]", "does not say"),
        ('{"classes": ["road", "car"]}', "does not say"),
        ('{"background": 2}', r"background \(got 2\)"),
        ('{"background": true}', r"background \(got True\)"),
        ('{"background": 0, "classes": ["car", "road"]}', "classes differ"),
        ('{"background": 0, "ignore": 0}', "ignore"),
    ],
)
def test_meta_that_contradicts_the_classes_is_refused(tmp_path, text, seen):
    if text is not None:
        (tmp_path / "meta.json").write_text(text)
    with pytest.raises(DataError, match=rf"meta\.json: {seen}"):
        read_background(tmp_path, ("road", "car"))


def test_names_of_digits_are_texts(tmp_path):
    (tmp_path / "classes.txt").write_text("0 20240512\n1 007\n2 7\n")
    (tmp_path / "meta.json").write_text('{"background": 0, "classes": [20240512, "007", 7]}')
    classes = read_classes(tmp_path)
    assert classes == ("20240512", "007", "7") and read_background(tmp_path, classes) == 0
    (tmp_path / "train.txt").write_text("20240512\n007\n7\n")
    assert read_split(tmp_path, "train") == ("20240512", "007", "7")


def test_a_split_keeps_its_order(tmp_path):
    (tmp_path / "train.txt").write_text("b\n a \r\n\nc.1\n")
    assert read_split(tmp_path, "train") == ("b", "a", "c.1")


@pytest.mark.parametrize(
    "image_id", ["/data/images/x", "../images/x", "day/../x", "./x", "day//x", "x/", ".."]
)
def test_a_path_is_no_image_id(tmp_path, image_id):
    (tmp_path / "train.txt").write_text(f"a/x\n{image_id}\n")
    with pytest.raises(DataError, match=r"train\.txt: a path is no image id .*; write ids below .*images"):
        read_split(tmp_path, "train")


def test_folders_are_written_with_slashes(tmp_path):
    (tmp_path / "images/day").mkdir(parents=True)
    (tmp_path / "images/day/1.jpg").touch()
    (tmp_path / "train.txt").write_text("day\\1\n")
    with pytest.raises(DataError, match=r"\(got day\\1\); write / between folders"):
        read_split(tmp_path, "train")
    (tmp_path / "images/day\\1.jpg").touch()
    assert read_split(tmp_path, "train") == ("day\\1",)


def test_the_name_of_an_image_file_is_no_image_id(tmp_path):
    (tmp_path / "images/day").mkdir(parents=True)
    (tmp_path / "images/day/1.jpg").touch()
    (tmp_path / "train.txt").write_text("day/1.jpg\n")
    with pytest.raises(DataError, match=r"\(got day/1\.jpg\); write ids without the suffix"):
        read_split(tmp_path, "train")
    (tmp_path / "images/day/1.jpg.png").touch()
    assert read_split(tmp_path, "train") == ("day/1.jpg",)


def test_a_missing_split_lists_those_that_exist(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/x.png").touch()
    for name in ("train", "val", "classes"):
        (tmp_path / f"{name}.txt").write_text("missing\nx\n")
    (tmp_path / "notes.txt").write_text("images of a street\n")
    with pytest.raises(DataError, match=r"test\.txt: no such split.*train, val$"):
        read_split(tmp_path, "test")


def test_only_lists_that_name_an_image_give_ids(tmp_path):
    (tmp_path / "images/day").mkdir(parents=True)
    (tmp_path / "images/day/1.jpeg").touch()
    (tmp_path / "train.txt").write_text("missing\nday/1\n")
    (tmp_path / "notes.txt").write_text(f"a sentence\n{'long ' * 200}\n")
    (tmp_path / "README.txt").write_bytes("Aufnahmen aus Köln\nday/1\n".encode("latin-1"))
    (tmp_path / "._train.txt").write_text("day/1\n")
    assert read_ids(tmp_path) == {"missing", "day/1"}
    with pytest.raises(DataError, match=r"README\.txt: cannot be read"):
        read_split(tmp_path, "README")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\n", "empty"),
        ("", "empty"),
        ("a\nb\na\n", r"twice \(got a\)"),
        ("\u00e9\ne\u0301\n", "twice"),
    ],
)
def test_an_empty_split_and_a_repeated_id_are_refused(tmp_path, text, seen):
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(DataError, match=rf"train\.txt.*{seen}"):
        read_split(tmp_path, "train")
