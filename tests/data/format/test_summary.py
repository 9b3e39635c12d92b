"""A packed split in numbers, and as the verb prints it."""

from __future__ import annotations

from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.format.summary import images_by_kind, summary, summary_table
from spml_dist.data.pack.pack import pack
from tests.data.conftest import CLASSES, samples


def test_images_of_no_kind_are_told_beside_the_kinds():
    some = {"kinds": {"tags": 4, "boxes": 1}, "images_of_no_kind": 2}
    assert images_by_kind(some) == {"tags": 4, "boxes": 1, "none": 2}
    assert images_by_kind({"kinds": {"tags": 6}, "images_of_no_kind": 0}) == {"tags": 6}
    assert images_by_kind({"kinds": {}, "images_of_no_kind": 6}) == {}


def test_the_table_has_a_row_for_each_class_where_any_is_labelled(tmp_path):
    pack(samples(2), tmp_path, "pets", split="train", labels="lines", classes=CLASSES, background=0)
    numbers = summary(read_manifest(tmp_path))
    size = numbers["bytes"] / 1e6
    assert summary_table(numbers).splitlines() == [
        "split            train",
        "labels           lines",
        "images           2 (0 without labelled pixels)",
        f"shards           1 ({size:.1f} MB)",
        "labelled pixels  3.33%",
        "regions          ",
        "class       images tagged  labelled pixels",
        "background              0                0",
        "cat                     0               40",
        "dog                     1               40",
    ]
    none = numbers | {"images_tagged": (0, 0, 0), "pixels_labelled": (0, 0, 0)}
    assert "background" not in summary_table(none)


def test_what_is_out_of_the_ordinary_is_said(tmp_path):
    pack(samples(1), tmp_path, "pets", split="train", labels="lines", classes=CLASSES)
    numbers = summary(read_manifest(tmp_path)) | {"pixels_contradicted": 7, "rejected": 2}
    lines = summary_table(numbers).splitlines()
    assert "contradicted     7 pixels" in lines and "rejected         2, listed in rejected.jsonl" in lines
