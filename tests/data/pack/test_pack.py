"""Packing: the same bytes for the same samples, and never half a pack."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spml_dist.data.format.keys import image_id_of, key_of
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.format.verify import verify
from spml_dist.data.pack.pack import pack
from spml_dist.data.stream.reader import Reader
from spml_dist.errors import DataError
from tests.data.conftest import CLASSES, HEIGHT, WIDTH, samples

DESCRIBED = {"split": "train", "labels": "lines", "classes": CLASSES, "background": 0}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_same_samples_give_the_same_bytes(tmp_path):
    for out in ("one", "two"):
        pack(iter(samples(5)), tmp_path / out, "pets", shard_size=2, **DESCRIBED)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert set(digests(tmp_path / "one")) == {f"pets-{i:06d}.tar" for i in range(3)} | {"manifest.json"}


def test_the_manifest_describes_the_tars_and_counts_the_labels(tmp_path):
    unlabelled = replace(samples(6)[5], semantic=samples(1)[0].semantic * 0 + 254)
    manifest = pack([*samples(5), unlabelled], tmp_path, "pets", shard_size=4, **DESCRIBED)
    assert manifest == read_manifest(tmp_path)
    assert [(shard.url, shard.samples) for shard in manifest.shards] == [
        ("pets-000000.tar", 4),
        ("pets-000001.tar", 2),
    ]
    for shard in manifest.shards:
        content = (tmp_path / shard.url).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard.bytes, shard.sha256)
    counts = manifest.counts
    assert (manifest.samples, counts.images_labelled, counts.images_unlabelled) == (6, 5, 1)
    assert counts.images_tags_unknown == 2 and counts.images_tagged == (0, 2, 2)
    assert counts.pixels == 6 * HEIGHT * WIDTH and counts.pixels_labelled == (0, 3 * 40, 2 * 40)


def test_members_carry_nothing_of_the_machine_that_packed_them(tmp_path):
    pack(samples(1), tmp_path, "pets", **DESCRIBED)
    with tarfile.open(tmp_path / "pets-000000.tar") as tar:
        entries = tar.getmembers()
    assert {(e.mtime, e.uid, e.gid, e.uname, e.gname, e.mode) for e in entries} == {(0, 0, 0, "", "", 0o644)}
    assert all(entry.pax_headers == {} for entry in entries)


def test_an_image_s_own_bytes_can_stand_for_it(tmp_path):
    pack(samples(1), tmp_path, "pets", jpeg=lambda sample: b"as it was", **DESCRIBED)
    with tarfile.open(tmp_path / "pets-000000.tar") as tar:
        assert tar.extractfile("image-0.jpg").read() == b"as it was"


def broken(count: int):
    yield from samples(count)
    raise DataError("image 7 cannot be decoded")


def test_an_interrupted_pack_leaves_nothing_that_looks_finished(tmp_path):
    with pytest.raises(DataError, match="image 7"):
        pack(broken(3), tmp_path, "pets", shard_size=1, **DESCRIBED)
    assert list(tmp_path.iterdir()) == []


def test_two_packs_into_one_folder_are_refused(tmp_path):
    def disturbed():
        for sample in samples(2):
            with pytest.raises(DataError, match=r"another process packs into it; wait for it"):
                pack(samples(3), tmp_path / "out", "pets", **DESCRIBED)
            yield sample

    pack(disturbed(), tmp_path / "out", "pets", shard_size=1, **DESCRIBED)
    assert digests(tmp_path / "out").keys() == {"manifest.json", "pets-000000.tar", "pets-000001.tar"}


def test_a_folder_with_somebodys_files_is_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(DataError, match=r"holds other files than a pack's \(got photo.jpg\)"):
        pack(samples(1), tmp_path, "pets", **DESCRIBED)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_what_a_killed_pack_left_is_in_nobodys_way(tmp_path):
    (tmp_path / "out/.packing/seen-1").mkdir(parents=True)
    (tmp_path / "out/.packing/fingerprint").write_text("of other settings")
    (tmp_path / "out/pets-000007.tar").touch()
    pack(samples(1), tmp_path / "out", "pets", **DESCRIBED)
    assert digests(tmp_path / "out").keys() == {"manifest.json", "pets-000000.tar"}
    (tmp_path / "out/manifest.json").unlink()
    pack(samples(1), tmp_path / "out", "pets", **DESCRIBED)


def test_an_interrupted_pack_leaves_the_one_before_it_as_it_was(tmp_path):
    pack(samples(2), tmp_path, "pets", **DESCRIBED)
    before = digests(tmp_path)
    with pytest.raises(DataError, match="image 7"):
        pack(broken(3), tmp_path, "pets", **DESCRIBED)
    assert digests(tmp_path) == before


def test_a_new_pack_replaces_the_old_one_and_leaves_other_files_alone(tmp_path):
    pack(samples(5), tmp_path, "old", shard_size=1, **DESCRIBED)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "pets-000009.tar").write_bytes(b"from a pack that was killed")
    (tmp_path / ".packing").mkdir()
    (tmp_path / ".packing" / "pets-000000.tar").write_bytes(b"half")
    pack(samples(2), tmp_path, "pets", **DESCRIBED)
    assert set(digests(tmp_path)) == {"manifest.json", "notes.txt", "pets-000000.tar"}
    assert verify(tmp_path)["problems"] == []


def test_a_manifest_cannot_make_pack_delete_what_lies_elsewhere(tmp_path):
    (tmp_path / "mine.tar").write_bytes(b"mine")
    out = tmp_path / "out"
    pack(samples(1), out, "pets", **DESCRIBED)
    text = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(text.replace("pets-000000.tar", "../mine.tar"))
    pack(samples(1), out, "other", **DESCRIBED)
    assert (tmp_path / "mine.tar").exists()


def test_no_samples_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no samples"):
        pack([], tmp_path, "pets", **DESCRIBED)
    assert list(tmp_path.iterdir()) == []


def test_two_samples_of_one_key_are_refused(tmp_path):
    with pytest.raises(DataError, match="image-0: two samples"):
        pack([*samples(1), *samples(1)], tmp_path, "pets", shard_size=1, **DESCRIBED)


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "x" * 1001])
def test_a_key_that_a_tar_cannot_carry_is_refused(tmp_path, key):
    with pytest.raises(DataError, match="not usable as a sample key"):
        pack([replace(samples(1)[0], key=key)], tmp_path, "pets", **DESCRIBED)


@pytest.mark.parametrize("name", ["", "a/b", "a.b", "../a"])
def test_a_name_that_is_no_plain_word_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="name of the tars"):
        pack(samples(1), tmp_path, name, **DESCRIBED)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.*cannot be written"):
        pack(samples(1), tmp_path / "file" / "out", "pets", **DESCRIBED)


@pytest.mark.parametrize("image_id", ["x" * 240, "ж" * 110, "deep/" * 20 + "p" * 120, "a.b" * 40, "ж" * 166])
def test_a_long_id_is_packed_read_and_verified(tmp_path, image_id):
    long = replace(samples(1)[0], key=key_of(image_id))
    manifest = pack([*samples(1), long, samples(2)[1]], tmp_path, "pets", **DESCRIBED)
    assert verify(tmp_path)["problems"] == []
    reader = Reader(tmp_path, manifest)
    assert [image_id_of(key) for key in reader.keys(0)] == ["image-0", image_id, "image-1"]
    assert np.array_equal(reader.read(0, 1).regions, long.regions)


def test_only_a_long_name_changes_the_form_of_a_tar_s_header(tmp_path):
    pack([*samples(1), replace(samples(1)[0], key="x" * 200)], tmp_path, "pets", **DESCRIBED)
    with tarfile.open(tmp_path / "pets-000000.tar") as tar:
        assert {bool(entry.pax_headers) for entry in tar if entry.name.startswith("image-0")} == {False}
