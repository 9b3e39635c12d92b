"""Asking a collection: what is nearest, what filters leave, and what is refused."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from spml_dist import open_index
from spml_dist.errors import ConfigError, DataError, RunError
from tests.inference.conftest import COLOURS, stripes


def answer(collection, **question):
    (only,) = collection.query(**question)
    return only


def test_neighbours_are_those_of_all_rows_compared(collection):
    vectors = collection.index.vectors.astype(np.float32)
    for row in range(0, len(collection), 3):
        found = answer(collection, segment=row, k=7)
        similarity = vectors @ vectors[row]
        similarity[row] = -2
        expected = np.lexsort((np.arange(len(vectors)), -similarity))[:7]
        assert [each.segment.row for each in found.neighbours] == expected.tolist()
        np.testing.assert_allclose([e.similarity for e in found.neighbours], similarity[expected], atol=1e-6)


def test_a_segment_is_named_by_its_id_or_its_row(collection):
    segment = collection.index.segment(4)
    assert (
        answer(collection, segment=segment.id).segment == segment == answer(collection, segment="4").segment
    )


def test_a_pixel_of_a_picture_finds_its_like(collection):
    found = answer(collection, image=stripes(0).image, at=(5, 20), k=5)
    assert {each.segment.predicted for each in found.neighbours} == {"red"}


def test_a_file_without_a_pixel_asks_about_all_its_segments(collection, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), stripes(1).image[..., ::-1])
    answers = collection.query(image=tmp_path / "a.png", k=2)
    assert len(answers) > 2 and all(len(each.neighbours) == 2 for each in answers)
    assert answers[0].query == f"{tmp_path}/a.png#0"


def test_a_class_is_asked_about_by_its_mean(collection):
    found = answer(collection, label="blue", k=4)
    assert {each.segment.predicted for each in found.neighbours} == {"blue"}


def test_filters_hold_for_every_answer(collection):
    everything = len(collection)
    by_class = answer(collection, segment=0, k=everything, only=["green", "blue"])
    assert {each.segment.label for each in by_class.neighbours} == {"green", "blue"}
    tags = answer(collection, segment=0, k=everything, tags="red and not (green or blue)")
    assert {each.segment.key for each in tags.neighbours} == {"stripes-2"}
    mine = answer(collection, segment=0, k=everything, other_pictures=True)
    assert {each.segment.key for each in mine.neighbours} == {f"stripes-{number}" for number in range(1, 5)}
    few = [each.segment.key for each in answer(collection, segment=0, k=everything, per_picture=1).neighbours]
    assert len(few) == len(set(few)) == 5
    near = answer(collection, segment=0, k=everything, least_similarity=0.9)
    assert 0 < len(near.neighbours) < everything and near.neighbours[-1].similarity >= 0.9
    large = answer(collection, segment=0, k=everything, area=(0.1, 0.5))
    assert large.neighbours and all(0.1 <= each.segment.area <= 0.5 for each in large.neighbours)


def test_a_filter_that_nothing_passes_gives_nothing(collection):
    assert answer(collection, segment=0, area=(0.99, 1)).neighbours == ()


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ({}, "exactly one"),
        ({"segment": 1, "label": "red"}, "exactly one"),
        ({"segment": "train/none/0"}, "no segment of the index"),
        ({"segment": "99999999"}, "no segment of the index"),
        ({"segment": "../../etc/passwd"}, "no segment of the index"),
        ({"label": "rde"}, "did you mean red"),
        ({"segment": 1, "k": 1_000_000}, "give 1 to 10,000"),
        ({"segment": 1, "tags": "red and"}, "a class is missing"),
        ({"segment": 1, "tags": "(red"}, "a bracket is not closed"),
        ({"segment": 1, "tags": 'red "'}, "a quote is not closed"),
        ({"segment": 1, "tags": "red )"}, "nothing fits"),
        ({"segment": 1, "tags": "(red and"}, r"got '\(red and'"),
        ({"segment": 1, "area": (0.5, 0.1)}, "the smaller first"),
        ({"segment": 1, "area": (float("nan"), 1)}, "two shares"),
        ({"segment": 1, "least_similarity": float("nan")}, "a cosine"),
        ({"segment": 1, "per_picture": 0}, "at least 1"),
        ({"segment": 1, "tags": "not " * 400 + "red"}, "within one another"),
        ({"segment": 1, "at": (1, 1)}, "give image too"),
        ({"image": stripes(0).image, "at": (61, 0)}, "outside the picture"),
    ],
)
def test_a_wrong_question_is_refused_with_the_reason(collection, question, reason):
    with pytest.raises(ConfigError, match=reason):
        collection.query(**question)


def test_what_is_no_picture_is_refused(collection, tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    for image in (tmp_path / "a.jpg", tmp_path / "none.jpg", np.zeros((4, 4), np.uint8)):
        with pytest.raises(DataError) as refused:
            collection.query(image=image)
        assert "split" not in str(refused.value), "a remedy of somebody who packs"


def test_a_new_picture_needs_the_network_of_the_index(built, tmp_path):
    moved = open_index(built, run=tmp_path / "gone")
    assert moved.query(segment=0)
    with pytest.raises(RunError, match="no run folder"):
        moved.query(image=np.broadcast_to(COLOURS[0], (16, 16, 3)).copy())


def damage_size(folder):
    path = folder / "vectors.npy"
    path.write_bytes(path.read_bytes()[:-2])


def damage_content(folder):
    path = folder / "metadata" / "metadata_00000.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def damage_count(folder):
    infos = json.loads((folder / "index_infos.json").read_text())
    (folder / "index_infos.json").write_text(json.dumps(infos | {"nb vectors": 3}))


def damage_infos(folder):
    (folder / "index_infos.json").write_text("{")


def damage_meaning(folder):
    infos = json.loads((folder / "index_infos.json").read_text())
    (folder / "index_infos.json").write_text(json.dumps({"version": infos["version"]}))


def damage_packs(folder):
    infos = json.loads((folder / "index_infos.json").read_text())
    (folder / "index_infos.json").write_text(json.dumps(infos | {"packs": 3}))


def damage_classes(folder):
    infos = json.loads((folder / "index_infos.json").read_text())
    (folder / "index_infos.json").write_text(json.dumps(infos | {"classes": ["c"] * 30}))


def damage_missing(folder):
    (folder / "image.index").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_size, "vectors.npy: not the"),
        (damage_content, "metadata_00000.parquet: its content is not"),
        (damage_count, "different numbers of rows"),
        (damage_infos, "index_infos.json: cannot be read"),
        (damage_missing, "image.index: cannot be read"),
        (damage_meaning, "damaged index .*files"),
        (damage_packs, "damaged index"),
        (damage_classes, "not the columns of 30 classes"),
    ],
)
def test_files_that_disagree_are_refused_with_the_reason(copied, damage, reason):
    folder = copied()
    damage(folder)
    with pytest.raises(RunError, match=reason):
        open_index(folder)


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(RunError, match="no index"):
        open_index(tmp_path)
