"""`spml-dist report`: at any moment of a run, and never for what is no run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spml_dist import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture
def crashed(tmp_path):
    """A training that was killed while it wrote a line."""
    (tmp_path / "config.yaml").write_text("name: beach\nschedule: {steps: 100}\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "loss": 2.5}\n{"step": 20, "lo')
    return tmp_path


def test_a_crashed_run_has_a_page_and_its_numbers_are_printed(crashed, capsys):
    assert cli.main(["report", str(crashed)]) == 0
    printed = capsys.readouterr().out
    assert "10  of 100 steps trained" in printed and "2.500  last loss" in printed
    assert printed.endswith(f"wrote {crashed}/report.html\n")
    assert "<h3>Loss</h3>" in (crashed / "report.html").read_text()
    assert not list(crashed.glob("*.tmp"))


def test_the_numbers_are_written_as_json_too(crashed, tmp_path):
    assert cli.main(["report", str(crashed), "--json", str(tmp_path / "told.json")]) == 0
    outcome = json.loads((tmp_path / "told.json").read_text())
    assert outcome["charts"] == [{"title": "Loss", "across": "step", "series": {"total": [[10.0, 2.5]]}}]


def test_what_is_no_run_folder_is_one_line(tmp_path, capsys):
    for folder, message in (("absent", "no such run folder"), (".", "no run folder: it has no config.yaml")):
        assert cli.main(["report", str(tmp_path / folder)]) == 2
        error = capsys.readouterr().err
        assert message in error and "spml-dist train" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_line(crashed, capsys):
    (crashed / "no").write_text("a file")
    assert cli.main(["report", str(crashed), "--json", str(crashed / "no" / "such.json")]) == 2
    error = capsys.readouterr().err
    assert "such.json: cannot be written" in error and error.count("\n") == 1


@pytest.mark.parametrize("verb", ["report", "track"])
def test_help_has_examples_and_imports_nothing_heavy(verb):
    code = (
        f"import sys; from spml_dist import cli; status = cli.main(['{verb}', '--help']);"
        "heavy = {'torch', 'mlflow', 'matplotlib', 'cv2'} & set(sys.modules);"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"spml-dist {verb} runs/quickstart" in done.stdout.partition("examples:")[2]
