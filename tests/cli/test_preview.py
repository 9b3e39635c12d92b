"""`spml-dist preview`: a sheet of a pack on which every kind of annotation occurs."""

from __future__ import annotations

from dataclasses import replace

import cv2
import pytest

from spml_dist.cli import main, preview
from spml_dist.shards.keys import key_of
from spml_dist.shards.manifest import read_manifest
from spml_dist.shards.pack import pack
from spml_dist.stream.reader import Reader
from tests.shards.conftest import samples

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
    assert "wrote 4 of 12 pictures to" in capsys.readouterr().out
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
def test_every_kind_occurs_and_no_picture_twice(packed, seed):
    read = reader(packed)
    places = preview.chosen(read, 4, seed)
    assert len(set(places)) == 4
    kinds = {kind for place in places for kind in read.read(*place).kinds or ("none",)}
    assert kinds == {"lines", "boxes", "tags", "none", "points"}


def test_no_more_pictures_are_shown_than_there_are(packed):
    assert sorted(preview.chosen(reader(packed), 99, 0)) == [(s, i) for s in range(3) for i in range(4)]


def test_a_kind_that_is_not_met_is_said_and_the_sheet_is_drawn_without_it(packed, monkeypatch, capsys):
    monkeypatch.setattr(preview, "LOOKED_AT", 2)
    assert len(preview.chosen(reader(packed), 2, 0)) == 2
    assert "of 2 pictures looked at none is: " in capsys.readouterr().err


def test_pictures_are_found_by_their_ids_in_the_order_asked_for(packed):
    read = reader(packed)
    places = preview.named(read, [IDS[9], IDS[2], IDS[9]])
    assert [read.read(*place).key for place in places] == [key_of(IDS[9]), key_of(IDS[2])]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "a.gif"], "--out (got a.gif); end its name in .png, .jpg, .jpeg"),
        (["--out", "a"], "--out (got a)"),
        (["--out", "a.png", "--images", "0"], "--images (got 0); show at least 1"),
        (["--out", "a.png", "--from", "größe.1,lost"], "no such images (got lost); give image ids"),
        (["--out", "a.png/b.png", "--images", "1"], "a.png/b.png: cannot be written"),
    ],
)
def test_a_mistake_is_one_line(packed, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    assert main(["preview", str(packed), *arguments]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


def test_what_is_no_pack_is_named(tmp_path, capsys):
    assert main(["preview", str(tmp_path), "--out", "a.png"]) == 2
    assert "manifest.json: no such file" in capsys.readouterr().err
