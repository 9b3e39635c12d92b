"""`spml-dist pack` and `spml-dist verify` as a user meets them."""

from __future__ import annotations

import hashlib
import json

import pytest

from spml_dist.cli import main
from spml_dist.data.format.manifest import read_manifest


def pack_folder(root, out, *more: str) -> int:
    return main(
        ["pack", "folder", str(root), "--labels", "lines", "--split", "train", "--out", str(out), *more]
    )


def test_a_folder_is_packed_and_verified(root, tmp_path, capsys):
    out = tmp_path / "packed"
    assert pack_folder(root, out, "--shard-size", "3", "--json", str(tmp_path / "table.json")) == 0
    printed = capsys.readouterr().out
    for text in ("4 (1 without labelled pixels)", "lines 3, none 1", "2 (", "cat", f"spml-dist verify {out}"):
        assert text in printed
    table = json.loads((tmp_path / "table.json").read_text())["train"]
    assert (table["name"], table["images"], table["shards"]) == ("pets-train", 4, 2)
    assert table["labelled_share"] == pytest.approx(3 * 60 / (4 * 30 * 40))

    assert main(["verify", str(out), "--json", str(tmp_path / "report.json")]) == 0
    assert json.loads((tmp_path / "report.json").read_text())[str(out)]["problems"] == []


def test_packing_twice_gives_the_same_bytes(root, tmp_path):
    for out in ("one", "two"):
        assert pack_folder(root, tmp_path / out, "--name", "pets") == 0
    for name in ("manifest.json", "pets-000000.tar"):
        one, two = (hashlib.sha256((tmp_path / out / name).read_bytes()).digest() for out in ("one", "two"))
        assert one == two


def test_the_radius_of_points_is_configured(root, tmp_path):
    def labelled(radius: str) -> int:
        out = tmp_path / radius
        arguments = ["--labels", "dots", "--split", "train", "--point-radius", radius, "--out", str(out)]
        assert main(["pack", "folder", str(root), *arguments]) == 0
        return sum(read_manifest(out).counts.pixels_labelled)

    assert (labelled("0"), labelled("1")) == (3, 15)


def test_a_split_without_annotations_is_packed_and_said_so(root, tmp_path, capsys):
    arguments = ["--labels", "lines", "--split", "test", "--out", str(tmp_path / "test")]
    assert main(["pack", "folder", str(root), *arguments]) == 0
    assert "test: no image has lines annotations; packed unlabelled" in capsys.readouterr().err


def test_the_sample_is_packed_in_two_splits_and_verified_at_once(tmp_path, capsys):
    asked = ["--images", "3", "--val", "2", "--size", "64", "--seed", "4", "--shard-size", "2"]
    assert main(["pack", "sample", "--out", str(tmp_path / "sample"), *asked]) == 0
    train, val = (read_manifest(tmp_path / "sample" / split) for split in ("train", "val"))
    assert (train.samples, len(train.shards), val.samples, len(val.shards)) == (3, 2, 2, 1)
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "sample")]) == 0
    assert "sample/train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["--labels", "line", "--split", "train"], "did you mean lines?"),
        (["--labels", "lines", "--split", "val"], "splits here: test, train"),
        (["--labels", "lines", "--split", "train", "--name", "a/b"], "name of the tars"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(root, tmp_path, capsys, arguments, seen):
    assert main(["pack", "folder", str(root), "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert seen in error[-1] and sum("error" in line for line in error) == 1


@pytest.mark.parametrize(
    "arguments", [["--shard-size", "0"], ["--point-radius", "-1"], ["--shard-size", "many"]]
)
def test_numbers_that_make_no_sense_are_refused(root, tmp_path, arguments):
    assert pack_folder(root, tmp_path / "out", *arguments) == 2
    assert not (tmp_path / "out").exists()


def test_a_truncated_tar_is_named_with_status_2_and_in_the_report(root, tmp_path, capsys):
    out = tmp_path / "packed"
    pack_folder(root, out)
    tar = out / "pets-train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    capsys.readouterr()
    assert main(["verify", str(out), "--json", str(tmp_path / "report.json")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{tar}: 3000 bytes" in error and "truncated" in error and "problems" in error
    report = json.loads((tmp_path / "report.json").read_text())[str(out)]
    assert report["problems"][0]["tar"] == tar.name


def test_a_folder_that_is_no_pack_is_refused(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert "manifest.json: no such file" in capsys.readouterr().err
