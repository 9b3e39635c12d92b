"""The manifest on disk."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from spml_dist.data.format.manifest import LabelCounts, Manifest, Shard, read_manifest, write_manifest
from spml_dist.errors import DataError

MANIFEST = Manifest(
    name="pets-train",
    split="train",
    labels="lines",
    classes=("background", "cat", "Füchse"),
    background=0,
    samples=3,
    counts=LabelCounts(
        images_labelled=2,
        images_unlabelled=1,
        images_tags_unknown=1,
        pixels=3600,
        pixels_labelled=(10, 20, 0),
        images_tagged=(0, 2, 0),
        images_unseen=(0, 1, 0),
        images_unlisted=(0, 0, 1),
        named_unseen=((), ("a",), ()),
        named_unlisted=((), (), ("b",)),
        pixels_contradicted=7,
        kinds={"points": 2},
    ),
    shards=(Shard("pets-train-000000.tar", 2, 512, "ab"), Shard("pets-train-000001.tar", 1, 256, "cd")),
)


@pytest.mark.parametrize("background", [0, None])
def test_what_was_written_is_read(tmp_path, background):
    manifest = replace(MANIFEST, background=background)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest


def test_the_file_is_sorted_readable_json_and_nothing_is_left_beside_it(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    text = (tmp_path / "manifest.json").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_folder_without_manifest_says_what_to_give(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"manifest\.json: no such file; .*spml-dist pack"):
            read_manifest(folder)


@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        (lambda text: text[:-9], "cannot be read as JSON"),
        (lambda text: "[]", "version"),
        (lambda text: text.replace('"version": 2', '"version": 4'), r"version.*\(got 4\)"),
        (lambda text: text.replace('"samples": 3', '"sample": 3'), r"keys are missing \(got samples\)"),
        (lambda text: text.replace('"sha256"', '"md5"'), r"keys are missing \(got sha256\)"),
        (lambda text: text.replace('"counts": {', '"counts": 4, "other": {'), "counts is not an object"),
        (lambda text: text.replace('"shards": [', '"shards": 4, "other": ['), "shards is not a list"),
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, spoil, seen):
    write_manifest(tmp_path, MANIFEST)
    path = tmp_path / "manifest.json"
    path.write_text(spoil(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(DataError, match=rf"manifest\.json: {seen}"):
        read_manifest(tmp_path)


def test_keys_of_later_releases_are_passed_over(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "later": 1}))
    assert read_manifest(tmp_path) == MANIFEST
