"""A partition that has not changed since the snapshot before is the same file, and the same rows as ever."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from spml_dist.bank import snapshot, snapshot_copy
from spml_dist.bank.sharded import ShardedBank
from spml_dist.bank.snapshot_manifest import MANIFEST
from spml_dist.hashing import image_hash
from tests.bank.builders import rows_of
from tests.bank.test_snapshot import SHARDS, bank_of, contents, history, question, same

NEW = "an image that comes later"
CHANGED = f"shard_{image_hash([NEW]).item() % SHARDS:05d}.safetensors"


def written(bank: ShardedBank, folder: Path, previous: Path | None = None) -> Path:
    """A snapshot as a checkpoint makes it, where each may share files with the one before."""
    copy = bank.copied(previous)
    copy.finish(folder, [copy.write(folder)])
    return folder


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def places(folder: Path) -> dict[str, int]:
    """Inode of each partition's file."""
    return {path.name: path.stat().st_ino for path in folder.glob("shard_*")}


@pytest.fixture
def bank() -> ShardedBank:
    return bank_of(*history())


@pytest.fixture
def first(bank, tmp_path) -> Path:
    return written(bank, tmp_path / "first")


def grow(bank: ShardedBank) -> ShardedBank:
    bank.add(rows_of([NEW], [3], 9), [])
    return bank


def test_only_what_changed_is_written(bank, first, tmp_path, monkeypatch):
    names: list[str] = []
    save = snapshot_copy.save_file

    def noted(tensors, path: Path) -> None:
        names.append(path.name)
        save(tensors, path)

    monkeypatch.setattr(snapshot_copy, "save_file", noted)
    second = written(grow(bank), tmp_path / "second", first)
    assert names == [CHANGED]
    shared = {name for name, place in places(second).items() if place == places(first).get(name)}
    assert shared == places(second).keys() - {CHANGED} and len(shared) >= 4


def test_the_snapshot_is_the_one_that_is_written_anew(bank, first, tmp_path):
    second = written(grow(bank), tmp_path / "second", first)
    snapshot.save(bank, tmp_path / "anew")
    assert contents_of(second) == contents_of(tmp_path / "anew")


def test_it_stays_when_the_one_before_is_removed(bank, first, tmp_path):
    second = written(grow(bank), tmp_path / "second", first)
    shutil.rmtree(first)
    again = bank_of()
    snapshot.restore(again, second)
    assert same(contents(again), contents(bank))


@pytest.mark.parametrize("damage", ["gone", "no manifest", "cut", "another bank's"])
def test_what_cannot_be_shared_is_written_anew(bank, first, tmp_path, damage):
    grow(bank)
    if damage == "gone":
        shutil.rmtree(first)
    elif damage == "no manifest":
        (first / MANIFEST).unlink()
    elif damage == "cut":
        for path in first.glob("shard_*"):
            path.write_bytes(path.read_bytes()[:-1])
    else:
        shutil.rmtree(first)
        written(bank_of(*history(8)), first)
    second = written(bank, tmp_path / "second", first)
    snapshot.save(bank, tmp_path / "anew")
    assert contents_of(second) == contents_of(tmp_path / "anew")
    assert not set(places(second).values()) & set(places(first).values())


def test_a_file_system_without_links_gets_a_copy(bank, first, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    second = written(grow(bank), tmp_path / "second", first)
    assert contents_of(second).keys() >= places(first).keys()
    assert not set(places(second).values()) & set(places(first).values())
    snapshot.restore(bank_of(), second)


def no_links(*_) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_partition_that_lost_an_image_has_changed(bank, first, tmp_path):
    bank.store.expire(2)
    second = written(bank, tmp_path / "second", first)
    again = bank_of()
    snapshot.restore(again, second)
    assert same(contents(again), contents(bank)) and len(again) < len(contents(bank_of(*history())))


def test_after_a_restart_nothing_has_changed(first, tmp_path):
    again = bank_of()
    snapshot.restore(again, first)
    assert places(written(again, tmp_path / "second", first)) == places(first)
    assert contents_of(tmp_path / "second") == contents_of(first)


def test_rows_that_cannot_be_written_have_no_file_to_share(bank, first, tmp_path, monkeypatch):
    """The next snapshot has what the failed one should have had."""
    grow(bank)
    with monkeypatch.context() as full:
        full.setattr(snapshot_copy, "save_file", no_links)
        with pytest.raises(Exception, match="cannot be written"):
            written(bank, tmp_path / "full", first)
    written(bank, tmp_path / "second", first)
    again = bank_of()
    snapshot.restore(again, tmp_path / "second")
    assert same(contents(again), contents(bank))


def test_the_copy_is_of_its_moment(tmp_path):
    bank = bank_of(*history(), exact_rows=10)
    bank.candidates(question(0), 4)
    snapshot.save(bank, tmp_path / "then")
    copy = bank.copied()
    for rows in history(7)[4:]:
        bank.add(rows, [])
        bank.candidates(question(1), 7)
    copy.finish(tmp_path / "later", [copy.write(tmp_path / "later")])
    assert contents_of(tmp_path / "later") == contents_of(tmp_path / "then")
