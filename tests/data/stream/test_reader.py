"""The reader: any sample at random, the same as was packed, and nothing damaged comes through."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from spml_dist.data.format.manifest import read_manifest, write_manifest
from spml_dist.data.stream.reader import Reader, samples
from spml_dist.errors import DataError

from .conftest import make_sample


def reader_of(folder, **kwargs) -> Reader:
    return Reader(folder, read_manifest(folder), **kwargs)


def rewrite(folder, change):
    """Replace the first tar by one with changed members ({name: bytes} -> the same), manifest in step."""
    manifest = read_manifest(folder)
    shard = manifest.shards[0]
    with tarfile.open(folder / shard.url) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    with tarfile.open(folder / shard.url, "w") as tar:
        for name, data in change(members).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    tars = (replace(shard, bytes=(folder / shard.url).stat().st_size), *manifest.shards[1:])
    write_manifest(folder, replace(manifest, shards=tars))


def refused(folder) -> str:
    with pytest.raises(DataError) as caught:
        reader_of(folder).read(0, 1)
    return str(caught.value)


def test_samples_come_back_as_they_were_packed_in_any_order(packed):
    reader = reader_of(packed(7, 3))
    for number in (6, 0, 4, 5, 3, 1, 2):
        read, packed_sample = reader.read(*divmod(number, 3)), make_sample(number)
        assert (read.key, read.tags) == (packed_sample.key, packed_sample.tags)
        for name in ("semantic", "regions", "mask"):
            np.testing.assert_array_equal(getattr(read, name), getattr(packed_sample, name))
            assert getattr(read, name).dtype == getattr(packed_sample, name).dtype
        difference = np.abs(read.image.astype(int) - packed_sample.image)
        assert read.image.dtype == np.uint8 and difference.mean() < 2, "JPEG's loss, in RGB order"


def test_masks_are_left_out_on_demand(packed):
    assert reader_of(packed(), masks=False).read(0, 0).mask is None


@pytest.mark.parametrize(("start", "stop"), [(0, None), (2, 6), (3, 3), (5, 99), (7, None)])
def test_a_range_of_samples_in_the_manifest_s_order(packed, start, stop):
    keys = [sample.key for sample in samples(packed(7, 3), start, stop)]
    assert keys == [f"beach-{number:03d}" for number in range(7)][start:stop]


def test_few_files_stay_open_and_all_stay_readable(packed):
    reader = reader_of(packed(6, 1), open_shards=2)
    for shard in (0, 1, 2, 0, 5, 4, 0):
        assert reader.read(shard, 0).key == f"beach-{shard:03d}"
        assert len(reader._open) <= 2


def test_a_used_reader_pickles_without_its_files(packed):
    reader = reader_of(packed())
    reader.read(0, 0)
    assert pickle.loads(pickle.dumps(reader)).read(1, 2).key == "beach-005"


@pytest.mark.parametrize("kept", [0.4, 0.8, 0.99])
def test_a_truncated_tar(packed, kept):
    folder = packed()
    tar = folder / "beach-000000.tar"
    tar.write_bytes(tar.read_bytes()[: int(kept * tar.stat().st_size)])
    message = refused(folder)
    assert str(tar) in message and "verify" in message


def test_a_tar_that_is_absent(packed):
    folder = packed()
    (folder / "beach-000000.tar").unlink()
    assert "beach-000000.tar: cannot be opened (got No such file" in refused(folder)


def test_a_tar_with_other_samples_than_its_manifest_says(packed):
    folder = packed()
    rewrite(folder, lambda members: {n: data for n, data in members.items() if "beach-002" not in n})
    assert "beach-000000.tar: not the 3 samples" in refused(folder)


def test_a_tar_damaged_while_it_is_open(packed):
    folder = packed()
    reader = reader_of(folder)
    reader.read(0, 0)
    tar = folder / "beach-000000.tar"
    with tar.open("r+b") as file:
        file.truncate(reader._open[0][1][1][0] + 700)
    with pytest.raises(DataError, match=r"beach-000000\.tar"):
        reader.read(0, 1)


@pytest.mark.parametrize("member", ["jpg", "semantic.png", "regions.png"])
def test_an_image_or_map_that_is_cut_short(packed, member):
    folder = packed()
    name = f"beach-001.{member}"
    rewrite(folder, lambda members: {**members, name: members[name][: len(members[name]) * 2 // 3]})
    message = refused(folder)
    assert "beach-000000.tar" in message and name in message


@pytest.mark.parametrize("member", ["jpg", "semantic.png", "regions.png", "tags.json"])
def test_a_member_that_is_missing(packed, member):
    folder = packed()
    rewrite(folder, lambda members: {n: data for n, data in members.items() if n != f"beach-001.{member}"})
    message = refused(folder)
    assert "beach-000000.tar: beach-001" in message and member in message


def test_a_label_outside_the_classes(packed):
    folder = packed()
    write_manifest(folder, replace(read_manifest(folder), classes=("sky", "sea", "sand")))
    message = refused(folder)
    assert "beach-001.semantic.png" in message and "(got 3)" in message


def test_a_label_map_of_another_size(packed):
    folder = packed()
    other = io.BytesIO()
    rewrite(folder, lambda members: {**members, "beach-001.jpg": _jpeg_of(make_sample(1, 41, 52), other)})
    message = refused(folder)
    assert "beach-001.semantic.png" in message and "52×40" in message and "52×41" in message


def _jpeg_of(sample, file) -> bytes:
    from PIL import Image

    Image.fromarray(sample.image).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("url", ["pipe:cat beach-000000.tar", "gopher://host/beach-000000.tar"])
def test_an_address_that_is_no_path_is_refused_and_not_run(packed, url):
    folder = packed()
    written = json.loads((folder / "manifest.json").read_text())
    written["shards"][0]["url"] = url
    (folder / "manifest.json").write_text(json.dumps(written))
    assert url in refused(folder)
