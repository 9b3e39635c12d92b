"""`spml-dist track`: send MLflow what it missed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spml_dist import cli
from spml_dist.config import dump, load
from spml_dist.tracking import mlflow_sync
from spml_dist.tracking.mlflow_sync import Missing

SMALL = Path(__file__).parents[1] / "small.yaml"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text(dump(load(SMALL, ["tracking.uri=http://configured"])))
    (tmp_path / "mlflow.json").write_text(json.dumps({"uri": "http://before", "run_id": "17"}))
    return tmp_path


@pytest.fixture
def sent(monkeypatch):
    """The addresses that were sent to; all of them answer."""
    calls = []

    def sync(folder, uri, experiment, name, params):
        calls.append((uri, experiment, name, params["seed"]))
        return Missing(folder, uri, 0, 0, None)

    monkeypatch.setattr(mlflow_sync, "sync", sync)
    return calls


def test_a_run_is_sent_where_it_was_sent_before(folder, sent, capsys):
    assert cli.main(["track", str(folder)]) == 0
    assert sent == [("http://before", "spml", "quickstart", 235)]
    assert capsys.readouterr().out == f"MLflow has all of {folder}: run 17\n"


def test_without_that_where_its_configuration_says_and_else_where_it_is_told(folder, sent):
    assert cli.main(["track", str(folder), "--uri", "http://other"]) == 0
    mirror_note = folder / "mlflow.json"
    mirror_note.write_text('{"run_id": "17"}')
    assert cli.main(["track", str(folder)]) == 0
    assert [uri for uri, *_ in sent] == ["http://other", "http://configured"]


def test_a_server_that_is_still_away_is_one_line(folder, monkeypatch, capsys):
    monkeypatch.setattr(mlflow_sync, "sync", lambda folder, uri, *_: Missing(folder, uri, 5, 1, "gone"))
    assert cli.main(["track", str(folder)]) == 2
    assert capsys.readouterr().err == (
        "spml-dist: error: MLflow at http://before lacks 5 numbers and 1 files (got gone); "
        "try again when it answers, or give --uri ADDRESS\n"
    )


def test_what_is_no_run_folder_is_one_line(tmp_path, capsys):
    assert cli.main(["track", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err
