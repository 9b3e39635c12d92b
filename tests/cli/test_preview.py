"""`spml-dist preview`: a sheet of a pack on which every kind of annotation occurs."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from spml_dist.cli import main
from spml_dist.data.format import sample_card
from spml_dist.data.format.keys import image_id_of, key_of
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.pack.pack import PackDescription, Rejection, pack, pack_parts
from spml_dist.data.stream import selection
from spml_dist.data.stream.reader import Reader
from tests.data.conftest import samples

IDS = [f"größe.{number}" for number in range(12)]
KINDS = [("lines",)] * 9 + [("boxes", "tags"), (), ("points",)]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pack")
    made = [
        replace(sample, key=key_of(image_id), kinds=kinds)
        for sample, image_id, kinds in zip(samples(12), IDS, KINDS, strict=True)
    ]
    made[10] = replace(made[10], semantic=made[10].semantic | 254, tags=None)
    classes = ("background", "katze", "собака")
    pack(made, folder, "pets", split="train", labels="lines,points,boxes,tags", classes=classes, shard_size=4)
    return folder


def reader(folder) -> Reader:
    return Reader(folder, read_manifest(folder))


def drawn(packed, tmp_path, *arguments: str, name: str = "a.png") -> bytes:
    assert main(["preview", str(packed), "--out", str(tmp_path / name), *arguments]) == 0
    return (tmp_path / name).read_bytes()


def test_a_sheet_is_drawn_and_the_same_for_the_same_seed(packed, tmp_path, capsys):
    first = drawn(packed, tmp_path, "--images", "4", "--seed", "5")
    assert "wrote 4 of 12 images to" in capsys.readouterr().out
    assert drawn(packed, tmp_path, "--images", "4", "--seed", "5") == first
    assert drawn(packed, tmp_path, "--images", "4", "--seed", "6") != first
    assert cv2.imread(str(tmp_path / "a.png")).shape[1] > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_jpeg_is_written_where_its_name_says_so(packed, tmp_path):
    assert drawn(packed, tmp_path, "--images", "1", name="made/a.JPG").startswith(b"\xff\xd8")


def test_masks_are_a_column_of_their_own(packed, tmp_path):
    drawn(packed, tmp_path, "--images", "1")
    without = cv2.imread(str(tmp_path / "a.png")).shape
    drawn(packed, tmp_path, "--images", "1", "--masks")
    assert cv2.imread(str(tmp_path / "a.png")).shape[1] > without[1] + 250


@pytest.mark.parametrize("seed", range(8))
def test_every_kind_occurs_and_no_image_twice(packed, seed):
    read = reader(packed)
    places = selection.choose(read, 4, seed).places
    assert len(set(places)) == 4
    kinds = {kind for place in places for kind in read.read(*place).kinds or ("none",)}
    assert kinds == {"lines", "boxes", "tags", "none", "points"}


def test_no_more_images_are_shown_than_there_are(packed):
    chosen = selection.choose(reader(packed), 99, 0)
    assert sorted(chosen.places) == [(s, i) for s in range(3) for i in range(4)]


def test_a_kind_that_is_not_met_is_told_and_the_sheet_drawn(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(selection, "LONGEST_SEARCH", 2)
    drawn(packed, tmp_path, "--images", "2")
    assert "of 2 images looked at none has: " in capsys.readouterr().err


def test_nothing_is_looked_for_that_the_counts_leave_no_room_for(tmp_path, monkeypatch):
    of_tags = [replace(s, semantic=s.semantic | 254, kinds=("tags",)) for s in samples(6)]
    classes = ("background", "cat", "dog")
    packed = pack(of_tags, tmp_path, "pets", split="train", labels="tags", classes=classes, shard_size=2)
    assert packed.counts.images_unlabelled == 6
    read, looked_at = Reader.read, []
    monkeypatch.setattr(Reader, "read", lambda *place: looked_at.append(place) or read(*place))
    chosen = selection.choose(reader(tmp_path), 2, 0)
    assert (len(chosen.places), chosen.kinds_not_met, len(looked_at)) == (2, [], 1)


def test_images_are_found_by_their_ids_in_the_order_asked_for(packed):
    read = reader(packed)
    places = selection.find(read, [IDS[9], IDS[2], IDS[9]])
    assert [read.read(*place).key for place in places] == [key_of(IDS[9]), key_of(IDS[2])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "a.gif"], "--out (got a.gif); end its name in .png, .jpg, .jpeg"),
        (["--out", "a"], "--out (got a)"),
        (["--out", "a.png", "--images", "0"], "--images (got 0); show at least 1"),
        (["--out", "a.png", "--from", "größe.1,lost"], "no such images (got lost); give image ids"),
        (["--out", "a.png", "--from", " , "], "--from (got ' , '); give image ids"),
        (["--out", "a.png/b.png", "--images", "1"], "a.png/b.png: cannot be written"),
    ],
)
def test_a_mistake_is_one_line(packed, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    assert main(["preview", str(packed), *arguments]) == 2
    outcome = capsys.readouterr().err
    assert message in outcome and outcome.count("\n") == 1


def test_blanks_around_image_ids_are_not_part_of_them(packed, tmp_path, capsys):
    drawn(packed, tmp_path, "--from", f"{IDS[3]}, {IDS[4]} ,")
    assert "wrote 2 of 12 images" in capsys.readouterr().out


def test_an_image_that_was_rejected_is_told_from_one_that_is_not_known(tmp_path, capsys):
    def read(_: int):
        yield samples(1)[0], b"jpeg"
        yield Rejection("größe.9", "größe.9.jpg: cannot be decoded")

    described = PackDescription("pets", "train", "lines", ("background", "cat", "dog"), 0)
    pack_parts(read, [2], tmp_path / "out", described)
    capsys.readouterr()
    command = ["preview", str(tmp_path / "out"), "--out", str(tmp_path / "a.png"), "--from", "lost,größe.9"]
    assert main(command) == 2
    message = "no such images (got lost, größe.9); größe.9 was rejected: größe.9.jpg: cannot be decoded; give"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("chosen", "flag"), [(["--images", "2"], "--images"), (["--from", IDS[0]], "--from")]
)
def test_a_sheet_that_no_jpeg_can_hold_asks_for_fewer_images(
    packed, tmp_path, monkeypatch, capsys, chosen, flag
):
    monkeypatch.setattr(sample_card, "sheet", lambda *_: np.zeros((65501, 1, 3), np.uint8))
    assert main(["preview", str(packed), "--out", str(tmp_path / "a.jpg"), *chosen]) == 2
    message = capsys.readouterr().err
    assert f"{flag}: " in message and "(got 65501 x 1 pixels); show fewer, or write a .png" in message
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_pack_is_named(tmp_path, capsys):
    assert main(["preview", str(tmp_path), "--out", "a.png"]) == 2
    assert "manifest.json: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("Paris, France 01", ["Paris, France 01"]),
        ("plain, Paris, France 01 ,it's #1?", ["plain", "Paris, France 01", "it's #1?"]),
        ("a,b", ["a", "b"]),
        ("猫,の,写真,plain", ["猫,の,写真", "plain"]),
    ],
)
def test_an_image_id_may_hold_commas(tmp_path, words, keys):
    ids = ["Paris, France 01", "plain", "it's #1?", "a", "b", "猫,の,写真"]
    made = [replace(sample, key=key_of(each)) for sample, each in zip(samples(6), ids, strict=True)]
    pack(made, tmp_path, "pets", split="train", labels="lines", classes=("background", "cat", "dog"))
    read = reader(tmp_path)
    found = selection.find(read, words.split(","))
    assert [image_id_of(read.read(*place).key) for place in found] == keys


def test_letters_that_no_font_has_are_told(tmp_path, capsys):
    made = [replace(samples(1)[0], key="a\ue999")]
    pack(made, tmp_path / "pack", "pets", split="train", labels="lines", classes=("background", "cat", "dog"))
    drawn(tmp_path / "pack", tmp_path)
    assert "no font here has \ue999: drawn as codes; install one" in capsys.readouterr().err
