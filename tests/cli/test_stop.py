"""`spml-dist stop`: a request that a training takes away when it has stopped."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from spml_dist import cli
from spml_dist.training import stopping


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("name: a\n")
    return tmp_path


def test_it_asks_and_does_not_wait(run, capsys):
    assert cli.main(["stop", str(run)]) == 0
    assert stopping.requested(run) and capsys.readouterr().out == "asked to save and stop\n"


def test_it_waits_until_the_training_has_stopped(run, capsys):
    timer = threading.Timer(0.3, (run / "stop").unlink)
    timer.start()
    assert cli.main(["stop", str(run), "--wait", "30"]) == 0
    timer.join()
    assert capsys.readouterr().out == "saved and stopped\n"


def test_a_training_that_does_not_answer_is_one_line(run, capsys):
    assert cli.main(["stop", str(run), "--wait", "1"]) == 2
    assert "did not stop within 1 s" in capsys.readouterr().err


def test_what_is_no_run_is_named(tmp_path, capsys):
    assert cli.main(["stop", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err
