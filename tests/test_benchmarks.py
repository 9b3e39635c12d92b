"""Every benchmark still fits the package: it loads, and its help says what it does."""

from __future__ import annotations

import importlib
import json
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch

from spml_dist.bank.memory_bank import MemoryBank
from spml_dist.config import load

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
COMMANDS = [path.stem for path in sorted(BENCHMARKS.glob("*.py")) if "__main__" in path.read_text()]


@pytest.mark.parametrize("name", COMMANDS)
def test_it_loads_and_explains_itself(name, capsys):
    benchmark = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit, match="0"):
        benchmark.main(["--help"])
    assert f"python -m benchmarks.{name}" in capsys.readouterr().out


def test_a_comparison_repeats_no_run_that_is_there(tmp_path, monkeypatch):
    """With every pack and run in OUT nothing is started, and the table is the mean over the seeds."""
    candidates = importlib.import_module("benchmarks.candidates")
    monkeypatch.setattr(candidates.training, "verb", lambda out, *words: pytest.fail(f"started {words}"))
    for part in ("gid15_points1", "gid15_scribble30", "ccp_points1"):
        for split in ("train", "val", "test"):
            _write(tmp_path / "data" / part / split / "manifest.json", "{}")
        for mode, seed in product(candidates.MODES, candidates.SEEDS):
            run = tmp_path / "runs" / f"{part}_{mode.replace('+', '_')}_{seed}"
            readouts = {way: {"miou": (seed - 200) / 100} for way in ("classifier", "neighbours")}
            for name in ("result.json", "result_test.json"):
                _write(run / name, json.dumps({"step": 2000, "readouts": readouts}))
            lines = [{"step": 500, "bank/purity": 0.0}, {"step": 1500, "bank/purity": 0.5}]
            _write(run / "metrics.jsonl", "\n".join(map(json.dumps, lines)))
            _write(run / "cpu.txt", "300\n100\n")
    _write(tmp_path / "runs" / "mlflow.db", "")
    folders = ["--gid15", str(tmp_path), "--ccp", str(tmp_path)]
    assert candidates.main([*folders, "--out", str(tmp_path)]) == 0
    assert len(json.loads((tmp_path / "candidates.json").read_text())) == 36
    table = (tmp_path / "candidates.md").read_text().splitlines()
    assert len(table) == 2 + 12
    means = "| 3 | 36.00 ± 1.00 | 36.00 ± 1.00 | 0.20 ± 0.00 | 0.50 ± 0.00 | - | - |"
    assert table[2] == f"| gid15 val | points1 | recent {means}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_study_of_learning_tells_what_is_there_and_repeats_nothing(tmp_path, monkeypatch, capsys):
    """A row of the table is a mean over the seeds; runs that are not finished stay out."""
    learning = importlib.import_module("benchmarks.learning")
    monkeypatch.setattr(learning.training, "verb", lambda out, *words: pytest.fail(f"started {words}"))
    for part in ("scribble30/train", "masks/val"):
        _write(tmp_path / "data" / f"gid15_{part}" / "manifest.json", "{}")
    finished = {"nearest_sampled_7": 500, "nearest_sampled_11": 500, "recent_7": 500, "recent_11": 400}
    for name, step in finished.items():
        run = tmp_path / "runs" / f"gid15_scribble30_{name}"
        readouts = {way: {"miou": int(name.rpartition("_")[2]) / 100} for way in ("classifier", "neighbours")}
        _write(run / "result.json", json.dumps({"step": step, "readouts": readouts}))
        _write(run / "cpu.txt", "300\n100\n")
    words = ["--set", "gid15", "--labels", "scribble30", "--row", "nearest+sampled", "--seed", "7", "11"]
    assert learning.main([*words, "--data", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert learning.main(["--table", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "learning.md").read_text().splitlines()[2:] == [
        "| gid15 | scribble30 | recent | 500 | 1 | 7.0 | 7.0 | 400.0 |",
        "| gid15 | scribble30 | nearest+sampled | 500 | 2 | 9.0 ± 2.8 | 9.0 ± 2.8 | 400.0 ± 0.0 |",
    ]
    recent, whole = json.loads((tmp_path / "learning.json").read_text())
    assert whole["seeds"] == [7, 11] and whole["classifier"]["values"] == pytest.approx([7, 11])
    assert whole["classifier"]["deviation"] == pytest.approx(8**0.5)
    assert recent["neighbours"]["deviation"] is None
    # On another machine the file alone says what is done.
    table = (tmp_path / "learning.md").read_text()
    shutil.rmtree(tmp_path / "runs")
    assert learning.main([*words, "--data", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "learning.md").read_text() == table
    assert learning.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if not line.startswith("|")]
    assert listed == list(learning.ROWS)


def test_every_row_of_the_study_is_an_experiment_that_can_be_loaded():
    learning = importlib.import_module("benchmarks.learning")
    configs = BENCHMARKS.parent / "configs"
    plain = load(configs / "gid15_scribble.yaml", learning.WORDS)
    for name, words in learning.ROWS.items():
        config = load(configs / "gid15_scribble.yaml", [*learning.WORDS, *words])
        assert (config == plain) == (name in ("nearest+sampled", *learning.CONTROLS)), name
    for name in learning.SETS.values():
        assert load(configs / name, learning.WORDS).model == plain.model


def test_the_controls_spoil_a_bank_and_nothing_else(monkeypatch):
    """Random vectors keep the class of the row that they replace; a frozen bank keeps its first rows."""
    controls = importlib.import_module("benchmarks.bank_controls")
    bank = MemoryBank(dim=4, classes=3, candidates="exact")
    bank.add(torch.eye(4)[:3], torch.arange(3), ["a"] * 3, step=0)
    elsewhere = bank.segments(torch.eye(4)[3:], torch.zeros(1, dtype=torch.int64), ["d"])
    honest, spoilt = bank.candidates(elsewhere, 1).rows, controls.random(bank.bank, elsewhere, 1).rows
    assert spoilt.semantic.tolist() == honest.semantic.tolist() == [0, 1, 2]
    assert torch.allclose(spoilt.prototype.norm(dim=1), torch.ones(3))
    assert not torch.allclose(spoilt.prototype, honest.prototype)
    taken = []
    monkeypatch.setattr(controls, "take_in", lambda bank, parts, step: taken.append((step, len(parts))))
    publish = controls.frozen(["train", "x.yaml", "schedule.steps=20"])
    for step in range(4):
        publish(bank.bank, ["part"], step)
    assert taken == [(0, 1), (1, 1), (2, 0), (3, 0)]


def test_what_follows_an_embedding_is_told_by_stage(tmp_path, monkeypatch):
    """Means over the seeds, in the order of the stages; labels are of train and have no boundary IoU. What
    the JSON knows is told where the runs are gone, and not trained again."""
    refined = importlib.import_module("benchmarks.refined")
    monkeypatch.setattr(refined.training, "verb", lambda out, *words: pytest.fail(f"started {words}"))
    for seed in (7, 11):
        run = tmp_path / "runs" / f"msrc21_boxes_nearest_sampled_{seed}"
        result = {"readouts": {"classifier": {"miou": seed / 100, "boundary_miou": 0.05}}}
        names = ("result.json", "stages/s2/result.json", "stages/s2/result_val_classifier_crf.json")
        for name in names:
            _write(run / name, json.dumps(result))
        walk = {"stage": "walk", "readout": "labels", "split": "train", "miou": 0.75}
        other = {"stage": "s2", "readout": "classifier", "split": "val", "miou": 0.5}
        _write(run / "refinement.json", json.dumps({"stages": [walk, other]}))
    _write(tmp_path / "runs/msrc21_boxes_nearest_sampled_235/result.json", "{}")  # not refined yet
    _write(tmp_path / "runs/msrc21_boxes_nearest_sampled_7_again/result.json", json.dumps(result))
    assert refined.main(["--out", str(tmp_path), "--table"]) == 0
    assert (tmp_path / "refined.md").read_text().splitlines()[2:] == [
        "| msrc21 | boxes | embedding | classifier | val | 2 | 9.0 ± 2.8 | 5.0 ± 0.0 |",
        "| msrc21 | boxes | walk | labels | train | 2 | 75.0 ± 0.0 | - |",
        "| msrc21 | boxes | s2 | classifier | val | 2 | 9.0 ± 2.8 | 5.0 ± 0.0 |",
        "| msrc21 | boxes | s2 | classifier, CRF | val | 2 | 9.0 ± 2.8 | 5.0 ± 0.0 |",
        "| msrc21 | boxes | again | classifier | val | 1 | 11.0 | 5.0 |",
    ]
    assert json.loads((tmp_path / "refined.json").read_text())[0]["miou"] == pytest.approx([7, 11])
    table = (tmp_path / "refined.md").read_text()
    shutil.rmtree(tmp_path / "runs")
    words = ["--set", "msrc21", "--labels", "boxes", "--seed", "7", "11", "--data", str(tmp_path)]
    assert refined.main(["--out", str(tmp_path), *words]) == 0
    assert (tmp_path / "refined.md").read_text() == table
