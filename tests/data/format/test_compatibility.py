"""What is known of packs before a sample is read: tars and counts as promised, splits of the same classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from spml_dist.data.format.compatibility import require_same_classes, require_tars
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.pack.pack import pack
from spml_dist.errors import DataError
from tests.data.conftest import CLASSES, samples


@pytest.fixture
def packed(tmp_path) -> Path:
    about = {"split": "train", "labels": "lines", "classes": CLASSES, "background": 0}
    pack(samples(4), tmp_path, "pets", **about, shard_size=2)
    return tmp_path


def test_a_sound_pack_agrees_with_itself(packed):
    manifest = read_manifest(packed)
    require_tars(packed, manifest)
    require_same_classes(packed, manifest, packed, manifest)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tar: tar.unlink(), r"pets-000000\.tar: cannot be read \(got No such file"),
        (lambda tar: tar.write_bytes(tar.read_bytes()[:-512]), r"pets-000000\.tar: not the \d+ bytes"),
    ],
    ids=["gone", "cut"],
)
def test_a_tar_that_is_not_what_the_manifest_says(packed, spoil, message):
    spoil(packed / "pets-000000.tar")
    with pytest.raises(DataError, match=message):
        require_tars(packed, read_manifest(packed))


def test_samples_that_do_not_add_up(packed):
    path = packed / "manifest.json"
    path.write_text(path.read_text().replace('"samples": 4', '"samples": 5'))
    with pytest.raises(DataError, match=r"manifest\.json: not the 5 samples .* \(got 4\)"):
        require_tars(packed, read_manifest(packed))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f'"{CLASSES[1]}"', '"fish"', f"1 is fish, there {CLASSES[1]}"),
        (f',\n    "{CLASSES[-1]}"', "", f"{len(CLASSES) - 1} is None, there {CLASSES[-1]}"),
        ('"background": 0', '"background": null', "background is None, there 0"),
    ],
    ids=["name", "number", "background"],
)
def test_other_classes_are_named(packed, old, new, message):
    known, path = read_manifest(packed), packed / "manifest.json"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        require_same_classes(packed, read_manifest(packed), "train", known)
    assert str(caught.value).startswith(
        f"{path}: classes are not those of train/manifest.json (got {message})"
    )
