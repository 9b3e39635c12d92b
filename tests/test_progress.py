"""The progress bar: on standard error, live in a terminal, whole lines and few of them in a log."""

from __future__ import annotations

import sys

import pytest

from spml_dist import progress
from spml_dist.progress import progress_bar


def test_items_pass_through_it_and_a_log_gets_whole_lines(capsys):
    assert list(progress_bar(iter("abc"), "reading", 3)) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and "\r" not in err and len(lines) == 2, "the beginning and the end"
    assert lines[-1].startswith("reading: 100%") and "3/3" in lines[-1] and "images" in lines[-1]


def test_a_log_gets_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0)
    list(progress_bar(range(4), "reading"))
    assert len(capsys.readouterr().err.splitlines()) > 3


def test_a_terminal_gets_one_line_that_changes(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    list(progress_bar(range(2), "reading", unit="tars"))
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.count("\r") >= 2 and "tars/s" in err


def test_what_was_done_before_counts(capsys):
    with progress_bar(range(4), "pets", initial=2) as bar:
        bar.update(2)
    assert "4/4" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("silent", [{"shown": False}, {"delay": 60}])
def test_it_can_be_silent(silent, capsys):
    assert list(progress_bar(range(3), "reading", **silent)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
