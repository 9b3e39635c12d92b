"""`spml-dist bank inspect`: what a run remembers, as a user asks for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spml_dist import cli
from spml_dist.bank.recent import RecentBank
from spml_dist.bank.sharded import LookupPlan, ShardedBank
from spml_dist.config import load
from spml_dist.training.checkpoint_writer import CheckpointWriter
from tests.bank.builders import CLASSES, DIM, rows_of
from tests.conftest import SMALL

ROOT = Path(__file__).parents[2]
NAMES = ["sky", "sea", "sand", "sun", "ship"]


class Engine:
    """Has nothing to save."""

    def state(self) -> dict:
        return {"weights": {}, "momentum": {}}


def bank_of() -> ShardedBank:
    settings, plan = load(SMALL).bank, LookupPlan((), False, ())
    return ShardedBank(settings, DIM, CLASSES, plan, 0, torch.device("cpu"), NAMES)


def save(bank: ShardedBank | RecentBank, run: Path, step: int, *overrides: str) -> Path:
    writer = CheckpointWriter(run / "checkpoints", load(SMALL, overrides))
    path = writer.begin(Engine(), bank, {"step": step})
    writer.finish()
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has remembered three images, two of them long ago."""
    bank = bank_of()
    bank.add(rows_of(["a", "b"], [3, 4], step=0, seed=1), ["a", "b"])
    bank.add(rows_of(["c"], [5], step=50, seed=2), ["c"])
    save(bank, tmp_path, 51)
    return tmp_path


def inspect(capsys, path: Path, *words: str) -> str:
    assert cli.main(["bank", "inspect", str(path), *words]) == 0
    return capsys.readouterr().out


def refused(capsys, path: Path) -> str:
    assert cli.main(["bank", "inspect", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err.removeprefix("spml-dist: error: ")


def test_a_run_a_checkpoint_and_a_bank_say_the_same(run, capsys):
    places = (run, run / "checkpoints" / "step_000051", run / "checkpoints" / "step_000051" / "bank")
    first, second, third = (inspect(capsys, place) for place in places)
    assert first == second == third
    assert first.startswith(f"{places[2]}: newest row of step 50\n")


def test_the_numbers_are_counted_from_the_rows(run, capsys, tmp_path):
    printed = inspect(capsys, run, "--json", str(tmp_path / "told.json"))
    outcome = json.loads((tmp_path / "told.json").read_text())
    folder = run / "checkpoints" / "step_000051" / "bank"
    rows = [rows_of(["a", "b"], [3, 4], seed=1), rows_of(["c"], [5], seed=2)]
    for source, name in ((1, "annotated"), (2, "propagated")):
        expected = sum(torch.bincount(r.label[r.source == source].long(), minlength=CLASSES) for r in rows)
        assert [each[name] for each in outcome["classes"]] == expected.tolist()
    assert outcome["unlabelled"] == sum((r.source == 0).sum().item() for r in rows) > 0
    assert (outcome["rows"], outcome["images"], outcome["step"]) == (12, 3, 50)
    assert outcome["age_mean"] == pytest.approx(7 * 50 / 12)
    assert outcome["age_share_below"] == pytest.approx({"10": 5 / 12, "100": 1, "1000": 1, "10000": 1})
    assert (outcome["partitions"], outcome["partitions_with_rows"]) == (16, 3)
    assert outcome["rows_a_partition"] == {"min": 3, "median": 4, "max": 5}
    assert outcome["bytes"] == sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert outcome["digest"] == json.loads((folder / "manifest.json").read_text())["digest"]
    assert f"rows          12 of {load(SMALL).bank.capacity:,}\n" in printed
    assert "mean 29.2; below 10: 42 %, below 100: 100 %" in printed and outcome["digest"] in printed
    assert "3 of 16 with rows: 3 to 5 each, median 4" in printed
    assert printed.splitlines()[-1].split() == ["unlabelled", str(outcome["unlabelled"])]


def test_classes_are_named_as_in_the_data(run, capsys):
    printed = inspect(capsys, run)
    assert all(f"\n{name} " in printed for name in NAMES)


def test_an_empty_bank_has_no_rows(tmp_path, capsys):
    save(bank_of(), tmp_path, 1)
    printed = inspect(capsys, tmp_path, "--json", str(tmp_path / "told.json"))
    assert "bank: no rows\n" in printed and "unlabelled          0\n" in printed
    outcome = json.loads((tmp_path / "told.json").read_text())
    assert outcome["bytes_per_row"] is outcome["rows_a_partition"] is outcome["age_mean"] is None


@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_a_damaged_file_is_named(run, capsys, damage):
    path = next((run / "checkpoints" / "step_000051" / "bank").glob("shard_*"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes(content if damage == "bit" else content[:-1])
    assert refused(capsys, run).startswith(f"{path} cannot be used")


def test_what_holds_no_bank_is_one_line(run, tmp_path, capsys):
    assert "absent: no such folder" in refused(capsys, tmp_path / "absent")
    assert "engine holds no saved bank" in refused(capsys, run / "checkpoints" / "step_000051" / "engine")
    save(RecentBank(2), run, 60)
    message = refused(capsys, run)
    assert "step_000060/bank remembers the last steps alone (got bank.candidates recent)" in message


def test_a_place_that_cannot_be_written_is_one_line(run, capsys):
    assert cli.main(["bank", "inspect", str(run), "--json", str(run / "no" / "such.json")]) == 2
    assert "such.json: cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["bank"], ["bank", "inspect"]])
def test_help_has_examples_and_imports_nothing_heavy(words):
    code = (
        f"import sys; from spml_dist import cli; status = cli.main({[*words, '--help']});"
        "heavy = {'torch', 'numpy', 'faiss', 'tqdm'} & set(sys.modules);"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "spml-dist bank inspect runs/quickstart" in done.stdout.partition("examples:")[2]
