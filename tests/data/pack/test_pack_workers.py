"""Packing in parts: the same bytes by any number of workers; the finished stays, the broken is listed."""

from __future__ import annotations

import errno
import json
import os
import signal
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.format.members import encode_jpeg
from spml_dist.data.format.verify import verify
from spml_dist.data.pack.pack import PackDescription, Rejection, pack, pack_parts
from spml_dist.errors import ConfigError, DataError, RunError
from spml_dist.files import address
from spml_dist.records import Sample
from tests import servers
from tests.data.conftest import CLASSES, samples
from tests.data.pack.test_pack import digests

DESCRIBED = PackDescription("pets", "train", "lines", CLASSES, 0, "ucm:80")
SIZES = (2, 2, 2, 1)


@dataclass(frozen=True)
class Reading:
    """Seven samples in four parts. broken: those that are rejected. notes: folder that hears of parts."""

    notes: Path
    broken: tuple[int, ...] = ()
    fatal: int | None = None
    """part in the middle of which the machine fails, the first time"""
    kill: bool = False
    """it fails by killing the worker"""

    def __call__(self, number: int) -> Iterator[tuple[Sample, bytes] | Rejection]:
        first_time = not (self.notes / str(number)).exists()
        (self.notes / str(number)).write_text("read")
        for index, sample in list(enumerate(samples(7)))[2 * number : 2 * number + 2]:
            if index in self.broken:
                yield Rejection(sample.key, f"{index}.jpg: cannot be decoded")
            else:
                yield sample, encode_jpeg(sample)
            if number == self.fatal and first_time and self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            if number == self.fatal and first_time:
                raise RunError("the machine fails")


@pytest.fixture
def reading(tmp_path: Path) -> Reading:
    (tmp_path / "notes").mkdir()
    return Reading(tmp_path / "notes")


def parts_read(reading: Reading) -> list[str]:
    """Parts that were read since this was asked last."""
    notes = sorted(reading.notes.iterdir())
    for note in notes:
        note.unlink()
    return [note.name for note in notes]


def full_disk(monkeypatch, tar: str) -> None:
    """Writing a tar of this name ends for want of room."""
    addfile = tarfile.TarFile.addfile

    def write(self, entry, content) -> None:
        if tar in self.fileobj.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        addfile(self, entry, content)

    monkeypatch.setattr(tarfile.TarFile, "addfile", write)


def test_any_number_of_workers_gives_the_bytes_of_the_plain_stream(reading, tmp_path):
    for workers in (1, 3):
        pack_parts(reading, SIZES, tmp_path / str(workers), DESCRIBED, workers=workers)
    assert digests(tmp_path / "1") == digests(tmp_path / "3")
    about = {"split": "train", "labels": "lines", "classes": CLASSES, "background": 0}
    whole = pack(samples(7), tmp_path / "stream", "pets", shard_size=2, **about)
    packed = read_manifest(tmp_path / "3")
    assert packed == replace(whole, regions="ucm:80") and verify(tmp_path / "3")["problems"] == []


@pytest.mark.parametrize("workers", [0, -1])
def test_fewer_workers_than_one_are_refused(reading, tmp_path, workers):
    with pytest.raises(ConfigError, match="--workers"):
        pack_parts(reading, SIZES, tmp_path / "out", DESCRIBED, workers=workers)


class TestRejected:
    def test_broken_images_are_listed_and_counted_and_stop_nobody(self, reading, tmp_path, capsys):
        broken = replace(reading, broken=(1, 4, 5))
        for workers in (1, 2):
            pack_parts(broken, SIZES, tmp_path / str(workers), DESCRIBED, workers=workers)
            assert "3 of 7 images rejected" in capsys.readouterr().err
        out = tmp_path / "1"
        assert digests(out) == digests(tmp_path / "2")
        manifest = read_manifest(out)
        assert (manifest.samples, manifest.rejected, verify(out)["problems"]) == (4, 3, [])
        listed = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
        assert listed == [{"image": f"image-{i}", "reason": f"{i}.jpg: cannot be decoded"} for i in (1, 4, 5)]

    def test_a_part_without_a_sound_image_gives_no_tar(self, reading, tmp_path):
        pack_parts(replace(reading, broken=(2, 3)), SIZES, tmp_path / "out", DESCRIBED)
        tars = [shard.url for shard in read_manifest(tmp_path / "out").shards]
        assert tars == [f"pets-{number:06d}.tar" for number in (0, 2, 3)]

    def test_a_sound_pack_has_no_list_not_even_an_earlier_one(self, reading, tmp_path):
        pack_parts(replace(reading, broken=(1,)), SIZES, tmp_path / "out", DESCRIBED)
        pack_parts(reading, SIZES, tmp_path / "out", DESCRIBED)
        assert not (tmp_path / "out" / "rejected.jsonl").exists()

    def test_a_set_without_a_sound_image_is_an_error(self, reading, tmp_path):
        with pytest.raises(DataError, match=r"all 7 rejected, the first for: 0\.jpg"):
            pack_parts(replace(reading, broken=tuple(range(7))), SIZES, tmp_path / "out", DESCRIBED)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_the_first_is_an_error_where_that_is_asked_for_and_nothing_is_kept(
        self, reading, tmp_path, workers
    ):
        broken = replace(reading, broken=(5,))
        with pytest.raises(DataError) as raised:
            pack_parts(
                broken, SIZES, tmp_path / "out", DESCRIBED, workers=workers, strict=True, fingerprint="f"
            )
        assert str(raised.value) == "5.jpg: cannot be decoded"
        assert not (tmp_path / "out").exists()

    def test_a_key_that_a_tar_cannot_carry_is_rejected(self, tmp_path):
        def read(number: int) -> Iterator[tuple[Sample, bytes]]:
            for sample in (*samples(1), replace(samples(1)[0], key="x" * 1001)):
                yield sample, b"jpeg"

        assert pack_parts(read, [2], tmp_path / "out", DESCRIBED).rejected == 1
        assert "rename the image" in (tmp_path / "out" / "rejected.jsonl").read_text()


def twice(number: int) -> Iterator[tuple[Sample, bytes]]:
    for sample in samples(2)[:: 1 if number else -1]:
        yield sample, b"jpeg"


def test_a_key_in_two_tars_is_refused_with_both(tmp_path):
    with pytest.raises(DataError, match=r"image-0: two samples.*in pets-000000.tar and pets-000001.tar"):
        pack_parts(twice, [2, 2], tmp_path / "out", DESCRIBED)


class TestGoingOn:
    @pytest.fixture
    def stopped(self, reading, tmp_path) -> Path:
        """A folder of which parts 0 and 1 are finished, and part 2 half."""
        with pytest.raises(RunError, match="the machine fails"):
            pack_parts(replace(reading, fatal=2), SIZES, tmp_path / "out", DESCRIBED, fingerprint="f")
        assert parts_read(reading) == ["0", "1", "2"]
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".packing"]
        return tmp_path / "out"

    def test_the_same_pack_takes_over_what_is_finished(self, reading, stopped, tmp_path, capsys):
        pack_parts(reading, SIZES, stopped, DESCRIBED, fingerprint="f")
        assert parts_read(reading) == ["2", "3"]
        assert "pets: 2 of 4 tars are there already" in capsys.readouterr().err
        pack_parts(reading, SIZES, tmp_path / "whole", DESCRIBED)
        assert digests(stopped) == digests(tmp_path / "whole")

    def test_also_after_the_death_of_a_worker(self, reading, tmp_path):
        fatal, out = replace(reading, fatal=2, kill=True), tmp_path / "out"
        with pytest.raises(RunError, match=r"worker process.*signal 9.*same command goes on"):
            pack_parts(fatal, SIZES, out, DESCRIBED, workers=2, fingerprint="f")
        finished = [path.stem[-1] for path in (out / ".packing").glob("*.json")]
        assert "2" in parts_read(reading) and "2" not in finished
        pack_parts(reading, SIZES, out, DESCRIBED, fingerprint="f")
        assert (
            sorted(parts_read(reading) + finished) == ["0", "1", "2", "3"] and verify(out)["problems"] == []
        )

    @pytest.mark.parametrize(
        "other",
        [
            {"fingerprint": "g"},
            {"fingerprint": ""},
            {"description": replace(DESCRIBED, labels="masks")},
            {"strict": True},
        ],
    )
    def test_another_pack_begins_anew(self, reading, stopped, other):
        pack_parts(reading, SIZES, stopped, **{"description": DESCRIBED, "fingerprint": "f", **other})
        assert parts_read(reading) == ["0", "1", "2", "3"]
        assert verify(stopped)["problems"] == []

    def test_a_tar_that_is_cut_does_not_count(self, reading, stopped):
        for tar in (stopped / ".packing").glob("*.tar"):
            tar.write_bytes(tar.read_bytes()[:-512])
        pack_parts(reading, SIZES, stopped, DESCRIBED, fingerprint="f")
        assert parts_read(reading) == ["0", "1", "2", "3"] and verify(stopped)["problems"] == []


class TestFullDisk:
    def test_it_is_one_line_and_loses_nothing(self, reading, tmp_path, monkeypatch):
        out = tmp_path / "out"
        pack_parts(replace(reading, broken=(0,)), SIZES, out, DESCRIBED)
        before, _ = digests_of_pack(out), parts_read(reading)
        with monkeypatch.context() as patched:
            full_disk(patched, "pets-000002.tar")
            with pytest.raises(DataError, match=r"out: cannot be written \(got No space left on device\)"):
                pack_parts(reading, SIZES, out, DESCRIBED, fingerprint="f")
        assert digests_of_pack(out) == before and not list((out / ".packing").glob("*.half"))
        assert parts_read(reading) == ["0", "1", "2"]
        pack_parts(reading, SIZES, out, DESCRIBED, fingerprint="f")
        assert parts_read(reading) == ["2", "3"] and verify(out)["problems"] == []

    def test_the_manifest_too_loses_nothing(self, reading, tmp_path, monkeypatch):
        from spml_dist.data.format import manifest

        def full(*_) -> None:
            raise DataError("manifest.json: cannot be written")

        pack_parts(replace(reading, broken=(0,)), SIZES, tmp_path, DESCRIBED)
        before = digests_of_pack(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(manifest, "write_manifest", full)
            with pytest.raises(DataError, match="cannot be written"):
                pack_parts(reading, SIZES, tmp_path, DESCRIBED, fingerprint="f")
        assert digests_of_pack(tmp_path) == before
        parts_read(reading)
        pack_parts(reading, SIZES, tmp_path, DESCRIBED, fingerprint="f")
        assert parts_read(reading) == []


def test_what_breaks_off_while_tars_are_put_in_place_goes_on(reading, tmp_path, monkeypatch):
    out, replaced = tmp_path / "out", os.replace

    def fail(source, target) -> None:
        if Path(target) == out / "pets-000002.tar":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))
        replaced(source, target)

    with monkeypatch.context() as patched, pytest.raises(DataError, match=r"pets-000002\.tar: cannot be"):
        patched.setattr(os, "replace", fail)
        pack_parts(reading, SIZES, out, DESCRIBED, fingerprint="f")
    assert not (out / "manifest.json").exists()
    pack_parts(reading, SIZES, out, DESCRIBED, fingerprint="f")
    assert verify(out)["problems"] == [] and not (out / ".packing").exists()


def interrupted(number: int) -> Iterator[tuple[Sample, bytes]]:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("fingerprint", "message"), [("f", "the same command goes on"), ("", "")])
def test_an_interrupt_says_whether_the_same_pack_goes_on(tmp_path, fingerprint, message):
    with pytest.raises(KeyboardInterrupt) as raised:
        pack_parts(interrupted, [1], tmp_path / "out", DESCRIBED, fingerprint=fingerprint)
    assert str(raised.value) == message


def digests_of_pack(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class TestAddress:
    @pytest.fixture
    def bucket(self, tmp_path, monkeypatch) -> Iterator[str]:
        pytest.importorskip("moto")
        monkeypatch.setattr(address, "RETRY_SECONDS", 0.5)
        (tmp_path / "nothing").mkdir()
        with servers.s3("shards", tmp_path / "nothing") as (url, environment):
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            yield url

    def test_a_pack_goes_to_an_address_once(self, bucket, reading, tmp_path):
        local, out = tmp_path / "local", f"{bucket}/a/pets"
        broken = replace(reading, broken=(1,))
        pack_parts(broken, SIZES, local, DESCRIBED)
        assert pack_parts(broken, SIZES, out, DESCRIBED) == read_manifest(local)
        stored = {name: address.read(f"{out}/{name}", 1) for name in address.sizes(out)}
        assert stored == digests_of_pack(local) and address.sizes(f"{out}/.packing") == {}
        with pytest.raises(DataError, match="a/pets: holds a pack; choose another --out, or remove"):
            pack_parts(reading, SIZES, out, DESCRIBED)

    def test_what_was_finished_there_is_taken_over(self, bucket, reading):
        out = f"{bucket}/pets"
        with pytest.raises(RunError):
            pack_parts(replace(reading, fatal=3), SIZES, out, DESCRIBED, fingerprint="f")
        assert parts_read(reading) == ["0", "1", "2", "3"]
        pack_parts(reading, SIZES, out, DESCRIBED, fingerprint="f")
        assert parts_read(reading) == ["3"]
        assert verify(out)["problems"] == []

    def test_tars_of_an_interrupted_pack_of_other_options_go(self, bucket, reading, tmp_path):
        out = f"{bucket}/other/pets"
        with pytest.raises(RunError):
            pack_parts(replace(reading, fatal=3), SIZES, out, DESCRIBED, fingerprint="f")
        for other in ("pets-000007.tar.gz", "pets-mine-000009.tar"):
            (tmp_path / other).write_bytes(b"mine")
            address.store(tmp_path / other, f"{out}/{other}")
        pack_parts(reading, [2], out, DESCRIBED, fingerprint="g")
        ours = {"manifest.json", "pets-000000.tar"}
        assert set(address.sizes(out)) == ours | {"pets-000007.tar.gz", "pets-mine-000009.tar"}

    def test_a_bucket_that_is_not_there_is_one_line(self, bucket, reading):
        with pytest.raises(RunError, match=r"s3://nobody/pets/\S+: cannot be written"):
            pack_parts(reading, SIZES, "s3://nobody/pets", DESCRIBED)

    def test_the_web_cannot_be_written_to(self, reading):
        with pytest.raises(DataError, match=r"http://host/pets: cannot be written to .*s3://, gs://"):
            pack_parts(reading, SIZES, "http://host/pets", DESCRIBED)
