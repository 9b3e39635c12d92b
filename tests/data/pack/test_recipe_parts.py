"""Recipes read in parts: a broken image is rejected, a failing machine is an error."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path

import pytest
from PIL import Image

from spml_dist.cli import main
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.pack.parts import Rejection
from spml_dist.data.pack.recipe_parts import RecipeParts
from spml_dist.data.recipes.images import open_images
from spml_dist.errors import RunError
from tests.data.conftest import image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(5):
        Image.fromarray(image(seed)).save(tmp_path / f"{seed}.jpg")
    return tmp_path


def test_parts_hold_the_images_in_order_wherever_they_are_read(photos):
    read = pickle.loads(pickle.dumps(RecipeParts(open_images(photos), 2)))
    keys = [[sample.key for sample, _ in read(number)] for number in range(3)]
    assert keys == [["0", "1"], ["2", "3"], ["4"]]
    sample, jpeg = next(read(1))
    assert jpeg == (photos / "2.jpg").read_bytes() and sample.image.shape == image(2).shape


def test_a_broken_image_is_rejected_in_its_place(photos):
    (photos / "1.jpg").write_bytes(b"no image")
    first, second = RecipeParts(open_images(photos), 2)(0)
    assert first[0].key == "0"
    assert isinstance(second, Rejection) and second.image_id == "1" and "cannot be decoded" in second.reason


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.EACCES])
def test_an_image_that_the_file_system_refuses_is_rejected(photos, monkeypatch, number):
    def refuse(path):
        raise OSError(number, os.strerror(number), str(path))

    recipe = open_images(photos)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    (rejected, _) = RecipeParts(recipe, 2)(0)
    assert rejected.image_id == "0"
    assert f"0.jpg: cannot be read (got {os.strerror(number)}); rename it" in rejected.reason


@pytest.mark.parametrize("labels", ["lines", "tags"])
def test_an_id_that_is_too_long_for_a_file_is_rejected_as_others_are(labels, root, tmp_path):
    (root / "train.txt").write_text(f"{'x' * 300}\na\nb\n")
    asked = ["--labels", labels, "--split", "train", "--out", str(tmp_path / "out")]
    assert main(["pack", "folder", str(root), *asked]) == 0
    (line,) = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    rejected = json.loads(line)
    assert rejected["image"] == "x" * 300 and "xxx.jpg: cannot be read (got " in rejected["reason"]
    assert read_manifest(tmp_path / "out").samples == 2


@pytest.mark.parametrize("opened", ["read_image", "plain_jpeg"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE])
def test_a_failing_machine_rejects_nobody(photos, monkeypatch, number, opened):
    recipe, read_bytes, calls = open_images(photos), Path.read_bytes, []

    def fail(path):
        calls.append(path)
        if len(calls) == {"read_image": 1, "plain_jpeg": 2}[opened]:
            raise OSError(number, os.strerror(number), str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(RunError, match=r"0\.jpg.*the same command goes on"):
        next(RecipeParts(recipe, 2)(0))
