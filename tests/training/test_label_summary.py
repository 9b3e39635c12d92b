"""What a training learns from is noted in its folder, and arrives at MLflow as numbers."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from spml_dist.config import load
from spml_dist.data.format.diagnose import hints
from spml_dist.data.format.manifest import LabelCounts, Manifest
from spml_dist.tracking import pending
from spml_dist.training import label_summary

COUNTS = LabelCounts(
    images_labelled=3,
    images_unlabelled=1,
    images_tags_unknown=2,
    pixels=100,
    pixels_labelled=(7, 0),
    images_tagged=(2, 0),
    images_unseen=(0, 0),
    images_unlisted=(0, 0),
    pixels_contradicted=5,
    kinds={"points": 2, "größe": 1},
)
MANIFEST = Manifest("pets", "train", "points", ("cat", "dog"), None, 4, COUNTS, ())


GLOBALLY = (
    "relations.image_similarity.weight=1",
    "relations.feature_affinity.weight=1",
    "relations.feature_affinity.scope=global",
)
NO_COOCCURRENCE = "relations.cooccurrence.weight=0"


def relations(*overrides: str):
    return load(Path(__file__).parents[1] / "small.yaml", overrides).relations


@pytest.fixture
def folder(tmp_path):
    label_summary.write(tmp_path, MANIFEST, relations(*GLOBALLY), "segmenter")
    return tmp_path


def test_the_note_holds_the_manifests_counts_and_the_hints(folder):
    message = json.loads((folder / "labels.json").read_text())
    assert (message["name"], message["classes"], message["background"], message["samples"]) == (
        "pets",
        ["cat", "dog"],
        None,
        4,
    )
    assert message["counts"]["kinds"] == COUNTS.kinds and message["counts"]["pixels_labelled"] == [7, 0]
    assert (
        message["hints"] == hints(MANIFEST)
        and len(message["hints"]) > 2
        and message["network"] == "segmenter"
    )


@pytest.mark.parametrize("damage", [False, True])
def test_a_resumed_training_writes_it_only_where_it_says_something_else(folder, damage):
    path = folder / "labels.json"
    if damage:
        path.write_text("{")
    os.utime(path, (1, 1))
    label_summary.write(folder, MANIFEST, relations(*GLOBALLY), "segmenter")
    assert (path.stat().st_mtime == 1) is not damage
    assert json.loads(path.read_text())["samples"] == 4


def test_mlflow_is_told_counts_of_kinds_and_images_and_gets_the_file(folder):
    (file,) = pending.artifacts(folder, {})
    assert (file.name, file.group) == ("labels.json", None)
    points = pending.numbers(folder, file)
    assert {name: value for name, value, *_ in points} == {
        "labels/images": 4,
        "labels/images_labelled": 3,
        "labels/images_unlabelled": 1,
        "labels/images_tags_unknown": 2,
        "labels/pixels_labelled": 7,
        "labels/pixels_contradicted": 5,
        "labels/kind/points": 2,
        "labels/kind/größe": 1,
    }
    assert {(when, step) for *_, when, step in points} == {(file.mark, 0)}
    assert pending.count(folder, {}) == (8, 1)


def hinted(folder, manifest, given, network="segmenter") -> str:
    label_summary.write(folder, manifest, given, network)
    return "\n".join(json.loads((folder / "labels.json").read_text())["hints"])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            GLOBALLY,
            "teach by image similarity, by feature affinity through the bank and by co-occurrence where "
            "their tags are known.",
        ),
        ((*GLOBALLY, NO_COOCCURRENCE), "teach by image similarity and by feature affinity through the bank."),
        (
            (*GLOBALLY, "relations.feature_affinity.weight=0"),
            "teach by image similarity and by co-occurrence where their tags are known.",
        ),
        (
            (*GLOBALLY, NO_COOCCURRENCE, "relations.feature_affinity.scope=image"),
            "teach by image similarity.",
        ),
        (
            (
                *GLOBALLY,
                NO_COOCCURRENCE,
                "relations.image_similarity.weight=0",
                "relations.feature_affinity.scope=batch",
            ),
            "teach by feature affinity in the batch.",
        ),
        (
            (
                NO_COOCCURRENCE,
                "relations.image_similarity.weight=0",
                "relations.feature_affinity.weight=0",
            ),
            "1 of 4 images have no labelled pixel and teach nothing.",
        ),
    ],
)
def test_images_without_a_label_teach_by_what_the_run_gives_a_weight(tmp_path, overrides, sentence):
    assert sentence in hinted(tmp_path, MANIFEST, relations(*overrides))


def test_where_nothing_cooccurs_no_class_is_to_be_left_out(tmp_path):
    everywhere = replace(COUNTS, images_tagged=(6, 1), images_tags_unknown=0)
    manifest = replace(MANIFEST, counts=everywhere, samples=6)
    for overrides, told in (((), True), ((NO_COOCCURRENCE,), False)):
        label_summary.write(tmp_path, manifest, relations(*overrides), "segmenter")
        said = json.loads((tmp_path / "labels.json").read_text())["hints"]
        assert any("ignore_classes" in hint for hint in said) == told


def test_a_run_on_whole_masks_or_on_nothing_is_told_what_it_lacks_all_the_same(tmp_path):
    masks = replace(MANIFEST, labels="masks", counts=replace(COUNTS, kinds={"masks": 4}))
    assert "No pixel is labelled as dog" in hinted(tmp_path, masks, relations())
    nothing = replace(COUNTS, images_labelled=0, pixels_labelled=(0, 0), images_tagged=(0, 0), kinds={})
    bare = replace(MANIFEST, labels="none", counts=replace(nothing, pixels_contradicted=0))
    for network in ("segmenter", "cam"):
        assert "nothing to learn classes from" in hinted(tmp_path, bare, relations(), network)


def test_a_cam_run_is_not_told_to_train_cam(tmp_path):
    tagged = replace(COUNTS, pixels_labelled=(0, 0), images_unseen=(2, 0), kinds={"tags": 4})
    for counts in (tagged, replace(tagged, pixels_labelled=(7, 0))):
        manifest = replace(MANIFEST, labels="tags", counts=counts)
        given = relations(*GLOBALLY)
        assert "spml-dist cam" in hinted(tmp_path, manifest, given)
        message = hinted(tmp_path, manifest, given, "cam")
        assert message and "CAM" not in message and "teach" not in message
