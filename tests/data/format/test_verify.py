"""Verification names every damage by tar and key."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from spml_dist.cli import main
from spml_dist.data.format.verify import verify
from spml_dist.data.pack.pack import pack
from spml_dist.errors import DataError
from tests.data.conftest import CLASSES, samples

FIRST, SECOND = "pets-000000.tar", "pets-000001.tar"


@pytest.fixture
def packed(tmp_path):
    pack(
        samples(4),
        tmp_path,
        "pets",
        split="train",
        labels="lines",
        classes=CLASSES,
        background=0,
        shard_size=2,
    )
    return tmp_path


def rewrite(tar: Path, change) -> None:
    """Write a tar again, every member as change(name, content) says; None leaves it out."""
    with tarfile.open(tar) as old:
        members = [(entry, change(entry.name, old.extractfile(entry).read())) for entry in old]
    with tarfile.open(tar, "w") as new:
        for entry, content in members:
            if content is not None:
                entry.size = len(content)
                new.addfile(entry, io.BytesIO(content))


def found(folder) -> list[tuple[str, str | None, str]]:
    return [(p["tar"], p["key"], p["problem"]) for p in verify(folder)["problems"]]


def test_a_sound_pack_has_no_problems(packed):
    report = verify(packed)
    assert report["problems"] == [] and (report["samples"], report["shards"]) == (4, 2)
    assert report["bytes"] == sum(path.stat().st_size for path in packed.glob("*.tar"))


@pytest.mark.parametrize("left", [0, 700, 5000, 10240])
def test_a_truncated_tar_is_named(packed, left):
    content = (packed / SECOND).read_bytes()
    assert left < len(content)
    (packed / SECOND).write_bytes(content[:left])
    tar, _, problem = found(packed)[0]
    assert tar == SECOND and "truncated" in problem
    assert {entry[0] for entry in found(packed)} == {SECOND}


def test_a_flipped_bit_is_found(packed):
    content = bytearray((packed / FIRST).read_bytes())
    content[600] ^= 1
    (packed / FIRST).write_bytes(content)
    assert (FIRST, None, "its sha256 is not the manifest's: changed after packing") in found(packed)


def test_a_missing_tar_is_named(packed):
    (packed / FIRST).unlink()
    assert found(packed) == [(FIRST, None, "the file is missing")]


def test_a_missing_member_is_named_with_its_key(packed):
    rewrite(packed / FIRST, lambda name, content: None if name == "image-1.regions.png" else content)
    problems = [entry for entry in found(packed) if entry[1] == "image-1"]
    assert len(problems) == 1 and "missing ['regions.png']" in problems[0][2]


def test_a_member_that_does_not_decode_is_named_with_its_key(packed):
    rewrite(packed / FIRST, lambda name, content: content[:-300] if name == "image-0.jpg" else content)
    assert any(
        key == "image-0" and "image-0.jpg: cannot be decoded" in text for _, key, text in found(packed)
    )


def test_a_key_that_comes_twice_is_found(packed):
    shutil.copy(packed / FIRST, packed / SECOND)
    assert (SECOND, "image-0", "image-0: two samples of one key") in found(packed)


def test_a_tar_of_another_pack_is_found(packed):
    shutil.copy(packed / FIRST, packed / "older-000000.tar")
    assert found(packed) == [("older-000000.tar", None, "not in the manifest: left by another pack")]


def test_counts_that_do_not_agree_are_found(packed):
    path = packed / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["samples"] = 5
    manifest["counts"]["images_labelled"] = 3
    path.write_text(json.dumps(manifest))
    assert [entry[0] for entry in found(packed)] == ["manifest.json"] * 2


@pytest.mark.parametrize(
    "absent",
    [
        ("named_unseen", "named_unlisted"),
        ("named_unseen", "named_unlisted", "images_of_no_kind"),
    ],
)
def test_a_pack_of_an_earlier_release_that_counted_less_is_sound(packed, absent):
    path = packed / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in absent:
        assert manifest["counts"].pop(name)
    path.write_text(json.dumps(manifest))
    assert found(packed) == []
    manifest["counts"]["images_unseen"][1] += 1
    path.write_text(json.dumps(manifest))
    assert found(packed) == [("manifest.json", None, "counts are not those of the samples")]


def test_without_a_manifest_there_is_nothing_to_verify(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json"):
        verify(tmp_path)


def test_hidden_files_and_folders_beside_a_pack_are_no_part_of_it(packed, tmp_path_factory, capsys):
    (packed / f"._{FIRST}").write_bytes(b"\0\5\26\7")
    (packed / f".{FIRST}.Xy12ab").write_bytes(b"half")
    assert verify(packed)["problems"] == []
    packs = tmp_path_factory.mktemp("packs")
    for name in ("train", ".Trash"):
        shutil.copytree(packed, packs / name)
    assert main(["verify", str(packs)]) == 0
    assert ".Trash" not in capsys.readouterr().out


def test_a_tar_too_many_may_be_removed(packed, capsys):
    (packed / "older-000000.tar").write_bytes((packed / FIRST).read_bytes())
    assert main(["verify", str(packed)]) == 2
    assert "older-000000.tar: not in the manifest" in (outcome := capsys.readouterr().err)
    assert "remove it" in outcome
