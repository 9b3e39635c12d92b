"""`spml-dist config`: the resolved experiment with where each value came from."""

from __future__ import annotations

import json
from pathlib import Path

from spml_dist.cli import main
from spml_dist.config import flatten, load

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def test_the_output_is_yaml_that_loads_to_the_same_with_an_origin_on_every_value(capsys, tmp_path: Path):
    assert main(["config", str(QUICKSTART), "stream.batch=4"]) == 0
    printed = capsys.readouterr().out
    copy = tmp_path / "copy.yaml"
    copy.write_text(printed)
    assert load(copy) == load(QUICKSTART, ["stream.batch=4"])
    values = [line for line in printed.splitlines() if not line.endswith(":")]
    assert len(values) == len(flatten(load(QUICKSTART)))
    assert all("  # " in line for line in values)
    assert len({line.index("  # ") for line in values if "# override" in line}) == 1


def test_origins_are_aligned(capsys):
    assert main(["config", str(QUICKSTART)]) == 0
    lines = capsys.readouterr().out.splitlines()
    origins = [line.rpartition("  # ") for line in lines if not line.endswith(":")]
    assert len({len(value) for value, _, _ in origins}) == 1
    assert {origin.rpartition(":")[0] for _, _, origin in origins} == {str(QUICKSTART), ""}  # or default
    assert "seed: 235" in lines[2] and lines[2].endswith("  # default")


def test_json_holds_values_and_origins_and_overrides_may_follow_it(capsys, tmp_path: Path):
    path = tmp_path / "config.json"
    assert main(["config", str(QUICKSTART), "--json", str(path), "stream.batch=4"]) == 0
    found = json.loads(path.read_text())
    assert found["stream.batch"] == {"value": 4, "origin": "override"}
    assert found["segments.grid"]["value"] == [6, 6]
    assert list(found) == list(flatten(load(QUICKSTART)))
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_json_that_cannot_be_written_is_one_line(capsys, tmp_path: Path):
    assert main(["config", str(QUICKSTART), "--json", str(tmp_path / "none" / "x.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_mistake_is_one_line_and_status_2(capsys):
    assert main(["config", str(QUICKSTART), "relations.annotaton.weight=1"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "relations.annotaton on the command line" in printed.err
    assert "did you mean relations.annotation?" in printed.err


def test_a_key_of_an_earlier_release_is_taken_with_one_line_of_notice(capsys):
    assert main(["config", str(QUICKSTART), "bank.shards=8"]) == 0
    printed = capsys.readouterr()
    assert "  partitions: 8 " in printed.out and "  shards:" not in printed.out
    assert printed.err == "spml-dist: bank.shards is bank.partitions today\n"


def test_the_reference_is_printed_without_an_experiment(capsys):
    assert main(["config", "--reference"]) == 0
    assert capsys.readouterr().out == QUICKSTART.with_name("reference.yaml").read_text()
