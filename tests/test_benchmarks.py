"""Every benchmark still fits the package: it loads, and its help says what it does."""

from __future__ import annotations

import importlib
import json
from itertools import product
from pathlib import Path

import pytest

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
