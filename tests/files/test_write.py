"""Whole or not at all: what a write that breaks off leaves, and what it says."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from spml_dist.errors import RunError
from spml_dist.files.write import flush, replacing, write_bytes, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_the_earlier_file_stays_until_the_new_one_is_whole(tmp_path, durable):
    path = tmp_path / "latest"
    path.write_text("old")
    with replacing(path, durable) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and names(tmp_path) == ["latest"]


@pytest.mark.parametrize("end", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
def test_what_breaks_off_leaves_the_earlier_file_and_no_other(tmp_path, end):
    path = tmp_path / "latest"
    path.write_text("old")
    with pytest.raises(type(end)), replacing(path) as aside:
        aside.write_text("half")
        raise end
    assert path.read_text() == "old" and names(tmp_path) == ["latest"]


def test_a_library_does_not_add_to_what_a_killed_writer_left(tmp_path):
    (tmp_path / "runs.db.tmp").write_text("half")
    with replacing(tmp_path / "runs.db") as aside, aside.open("a") as file:
        file.write("whole")
    assert (tmp_path / "runs.db").read_text() == "whole"


def test_a_durable_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    replace = os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: events.append(os.readlink(f"/proc/self/fd/{handle}")))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("renamed"), replace(*paths)))
    with replacing(tmp_path / "latest", durable=True) as aside:
        aside.write_text("step_000400")
    assert events == [f"{tmp_path}/latest.tmp", "renamed", str(tmp_path)]


def test_a_file_system_may_refuse_to_flush_folders_but_not_files(tmp_path, monkeypatch):
    def refuse(handle: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(os, "fsync", refuse)
    flush(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        flush(tmp_path / "file")


def test_texts_are_utf_8_and_json_is_for_people_too(tmp_path):
    write_text(tmp_path / "a", "Köln\n")
    assert (tmp_path / "a").read_bytes() == "Köln\n".encode()
    write_json(tmp_path / "b", {"b": "Köln", "a": [1]})
    assert (tmp_path / "b").read_text(encoding="utf-8").splitlines()[1:3] == ['  "a": [', "    1"]
    write_json(tmp_path / "b", {"b": "Köln", "a": []}, sort_keys=False)
    text = (tmp_path / "b").read_text(encoding="utf-8")
    assert list(json.loads(text)) == ["b", "a"] and "Köln" in text and text.endswith("}\n")


@pytest.mark.parametrize(("write", "content"), [(write_text, ""), (write_bytes, b""), (write_json, {})])
def test_a_place_that_cannot_be_written_is_named(tmp_path, write, content):
    with pytest.raises(RunError, match=r"lost/report\.json: cannot be written \(got No such .*; choose a"):
        write(tmp_path / "lost" / "report.json", content)
    with pytest.raises(RunError, match=r"; make room$"):
        write(tmp_path / "lost" / "report.json", content, remedy="make room")
