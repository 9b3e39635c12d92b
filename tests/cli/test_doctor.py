"""`spml-dist doctor`: what it finds, and what it says is to be done."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path

import pytest

from spml_dist import cli
from spml_dist.training import doctor
from tests.servers import dead_url

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def a_machine_with_room(monkeypatch):
    """Findings depend on the experiment alone."""
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(1e12, 0, 1e12))
    monkeypatch.setattr(doctor, "FREE_MEMORY", 0.0)
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda which: (1 << 20, 1 << 20))


def examined(capsys, *words: object) -> tuple[int, list[str]]:
    status = cli.main(["doctor", *map(str, words)])
    return status, capsys.readouterr().out.splitlines()


def test_a_machine_alone(capsys):
    status, lines = examined(capsys)
    assert (status, lines[-1]) == (0, "all is well"), lines
    assert any(line.startswith("ok   torch: 2.") for line in lines)


def test_an_experiment_that_can_start_leaves_nothing_behind(experiment, tmp_path: Path, capsys):
    words = experiment(tmp_path / "runs", "tiny", f"tracking.uri=sqlite:///{tmp_path}/mlflow.db")
    status, lines = examined(capsys, *words, "--json", tmp_path / "doctor.json")
    assert status == 0, lines
    assert "ok   data: 12 samples in 3 shards, all there" in lines
    findings = json.loads((tmp_path / "doctor.json").read_text())
    assert all(finding["well"] for finding in findings) and {"output", "MLflow"} <= {
        f["name"] for f in findings
    }
    assert not (tmp_path / "runs").exists()


def test_everything_that_is_wrong_is_said_with_what_to_do(experiment, tmp_path: Path, capsys):
    (tmp_path / "file").touch()
    lost = (f"output={tmp_path}/file/runs", f"data.train={tmp_path}/none", f"tracking.uri={dead_url()}")
    status, lines = examined(capsys, *experiment(tmp_path, "tiny", *lost))
    assert (status, lines[-1]) == (
        2,
        f"3 of {len([each for each in lines if each[:3] != '   ']) - 1} to look at",
    )
    bad = {line[5:].partition(":")[0] for line in lines if line.startswith("BAD")}
    assert bad == {"output", "data", "MLflow"}
    assert any("choose another output=" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "thing", "value"),
    [
        ("shared memory", "disk_usage", lambda path: Usage(64e6, 0, 64e6)),
        ("open files", "getrlimit", lambda which: (256, 4096)),
    ],
)
def test_a_machine_that_gives_too_little(name, thing, value, monkeypatch, capsys):
    monkeypatch.setattr(doctor.shutil if thing == "disk_usage" else doctor.resource, thing, value)
    status, lines = examined(capsys)
    assert status == 2 and any(line.startswith(f"BAD  {name}:") for line in lines)


def test_a_mistake_in_the_experiment_is_one_line(capsys):
    assert cli.main(["doctor", "configs/quikstart.yaml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
