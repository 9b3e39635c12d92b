"""Stopped and started again, a run ends where it would have ended; a half-written checkpoint is none."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from spml_dist.bank.recent import RecentBank
from spml_dist.config import load
from spml_dist.engine import checkpoint
from spml_dist.errors import RunError
from spml_dist.schema import Rows
from tests.conftest import QUICKSTART, payload, work
from tests.spawn import spawn

VARIANTS = {
    "whole": [],
    "split": ["engine.zero_stage=3", "engine.precision=bfloat16", "engine.accumulation=2"],
}


class TestResume:
    """Two gloo workers; stopped before step 3 and again before step 5, in other processes."""

    pytestmark = pytest.mark.timeout(600)

    @pytest.fixture(scope="class")
    def output(self, tmp_path_factory) -> Path:
        return tmp_path_factory.mktemp("runs")

    @pytest.fixture(scope="class")
    def told(self, experiment, output: Path) -> dict[str, list]:
        """What the ranks said of the first, second and third start of every stopped run."""

        def start(name: str, stop_before: int | None = None) -> dict:
            return payload(experiment(output, name, *VARIANTS[name.split("-")[0]]), stop_before)

        straight = [start(f"{name}-straight") for name in VARIANTS]
        first = spawn(work, 2, [start(f"{name}-stopped", 3) for name in VARIANTS] + straight, seconds=400)

        half_written = output / "whole-stopped" / "checkpoints" / "step_000005.tmp"
        (half_written / "engine").mkdir(parents=True)
        (half_written / "stream.json").write_text('{"step": 5')
        copy = shutil.copytree(half_written.parent, output / "whole-damaged" / "checkpoints")
        (damaged,) = (copy / "step_000002").glob("engine/*.pt")
        damaged.write_bytes(damaged.read_bytes()[:5000])

        again = [start(f"{name}-stopped", 5) for name in VARIANTS]
        last = [start(f"{name}-stopped") for name in VARIANTS]
        later = spawn(work, 2, [*again, *last, start("whole-damaged")], seconds=400)
        count = len(VARIANTS)
        return {
            "damaged": [rank[2 * count] for rank in later],
            **{
                name: [
                    [rank[i] for rank in ranks] for ranks, i in ((first, n), (later, n), (later, n + count))
                ]
                for n, name in enumerate(VARIANTS)
            },
        }

    @pytest.mark.parametrize("name", VARIANTS)
    def test_it_goes_on_after_the_last_checkpoint(self, told, name: str):
        first, second, third = told[name]
        assert first == [{"steps": [0, 1, 2], "error": "InterruptedError: before step 3"}] * 2
        assert second == [{"steps": [2, 3, 4], "error": "InterruptedError: before step 5"}] * 2
        assert third == [{"steps": [4, 5], "error": None}] * 2

    @pytest.mark.parametrize("name", VARIANTS)
    def test_the_exported_network_is_the_same_to_the_bit(self, told, output: Path, name: str):
        one, other = (
            (output / f"{name}-{how}" / "export" / "model.safetensors").read_bytes()
            for how in ("straight", "stopped")
        )
        assert one == other

    @pytest.mark.parametrize("name", VARIANTS)
    def test_so_are_the_bank_and_the_place_in_the_stream(self, told, output: Path, name: str):
        one, other = last_checkpoints(output, name)
        for file in ("bank/rows.safetensors", "stream.json"):
            assert (one / file).read_bytes() == (other / file).read_bytes()

    def test_so_are_weights_momentum_and_statistics_of_the_batch_norms(self, told, output: Path):
        """Only of the unsplit run: ZeRO 3 pads its parts with whatever is in memory."""
        one, other = (
            {
                f"{file.name}{key}": value
                for file in (folder / "engine").iterdir()
                for key, value in tensors(torch.load(file, weights_only=False))
            }
            for folder in last_checkpoints(output, "whole")
        )
        assert one.keys() == other.keys()
        for wanted in ("momentum_buffer", "running_var", "classify.weight"):
            assert any(wanted in key for key in one)
        assert [key for key in one if not torch.equal(one[key], other[key])] == []

    @pytest.mark.parametrize("name", VARIANTS)
    def test_every_step_is_logged_once_with_the_numbers_of_the_straight_run(self, told, output: Path, name):
        def log(how: str) -> list[dict]:
            lines = (output / f"{name}-{how}" / "metrics.jsonl").read_text().splitlines()
            passing = ("time/", "images_per_s", "memory_mb", "eta_s")
            return [
                {k: v for k, v in json.loads(line).items() if not k.startswith(passing)} for line in lines
            ]

        assert [entry["step"] for entry in log("stopped")] == [1, 2, 3, 4, 5, 6]
        assert log("stopped") == log("straight")

    def test_it_stays_one_run_in_mlflow(self, told, output: Path):
        with sqlite3.connect(output / "mlflow.db") as database:
            rows = database.execute("select name, status from runs where name like '%-st%'").fetchall()
        assert sorted(rows) == sorted(
            (f"{name}-{how}", "FINISHED") for name in VARIANTS for how in ("straight", "stopped")
        )

    def test_what_was_half_written_is_gone_and_the_newest_are_kept(self, told, output: Path):
        folder = output / "whole-stopped" / "checkpoints"
        assert {path.name for path in folder.iterdir()} == {"latest", "step_000004", "step_000006"}
        assert (folder / "latest").read_text() == "step_000006\n"

    def test_a_damaged_checkpoint_is_named_by_every_rank(self, told, output: Path):
        for rank in told["damaged"]:
            assert rank["steps"] == []
            assert rank["error"].startswith(
                f"RunError: {output}/whole-damaged/checkpoints/step_000002 cannot be read"
            )
            assert "name an older one in latest" in rank["error"]


def last_checkpoints(output: Path, name: str) -> list[Path]:
    return [output / f"{name}-{how}" / "checkpoints" / "step_000006" for how in ("straight", "stopped")]


def tensors(value, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of nested containers, by the path to it."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors(inner, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for key, inner in enumerate(value):
            yield from tensors(inner, f"{name}/{key}")


class Engine(SimpleNamespace):
    """Saves and loads a number in DeepSpeed's way."""

    weight = 0.0
    fails = False
    device = "cpu"

    def save_checkpoint(self, parent: str, tag: str, save_latest: bool) -> None:
        (Path(parent) / tag).mkdir()
        (Path(parent) / tag / "weight").write_text(str(self.weight))
        if self.fails:
            raise OSError("No space left on device")

    def load_checkpoint(self, parent: str, tag: str):
        self.weight = float((Path(parent) / tag / "weight").read_text())
        return parent, {}


def bank_of(*steps: int) -> RecentBank:
    bank = RecentBank(3)
    for step in steps:
        rows = torch.full((2, 4), float(step)), torch.tensor([0, 254]), torch.zeros(2, 3, dtype=torch.bool)
        bank.publish(Rows(*rows, torch.ones(2, dtype=torch.bool), torch.tensor([step, step])))
    return bank


class TestFolder:
    """Without DeepSpeed: what is on disk after a save, whole or broken off."""

    @pytest.fixture
    def save(self, tmp_path: Path) -> Callable[..., Path]:
        def write(step: int, keep: int = 2, **engine) -> Path:
            config = load(QUICKSTART, [f"checkpoint.keep={keep}"])
            state = {"step": step, "fingerprint": "f"}
            return checkpoint.save(Engine(weight=step, **engine), bank_of(1, step), state, config, tmp_path)

        return write

    def test_nothing_is_the_latest_of_nothing(self, tmp_path: Path):
        assert checkpoint.latest(tmp_path) is None
        assert checkpoint.latest(tmp_path / "absent") is None

    def test_what_was_saved_comes_back(self, save, tmp_path: Path):
        assert save(7) == checkpoint.latest(tmp_path) == tmp_path / "step_000007"
        engine, bank = Engine(), bank_of(4)
        assert checkpoint.restore(tmp_path / "step_000007", engine, bank) == {"step": 7, "fingerprint": "f"}
        assert engine.weight == 7
        assert [rows.image.tolist() for rows in bank.rows()] == [[1, 1], [7, 7]]

    def test_an_empty_bank_comes_back_empty(self, tmp_path: Path):
        config, state = load(QUICKSTART), {"step": 1, "fingerprint": "f"}
        path = checkpoint.save(Engine(), RecentBank(0), state, config, tmp_path)
        bank = bank_of(3)
        checkpoint.restore(path, Engine(), bank)
        assert len(bank) == 0

    @pytest.mark.parametrize("keep", [1, 2, 3])
    def test_the_newest_are_kept_by_number_not_by_name(self, save, tmp_path: Path, keep: int):
        steps = (999_997, 999_998, 999_999, 1_000_000)
        for step in steps:
            save(step, keep)
        kept = {f"step_{step:06d}" for step in steps[-keep:]}
        assert {path.name for path in tmp_path.iterdir()} == kept | {"latest"}
        assert checkpoint.latest(tmp_path).name == "step_1000000"

    def test_after_a_return_to_an_older_one_the_newest_is_what_was_written_last(self, save, tmp_path: Path):
        for step in (2, 4, 6):
            save(step, keep=3)
        (tmp_path / "latest").write_text("step_000002\n")
        save(3, keep=1)
        assert checkpoint.latest(tmp_path) == tmp_path / "step_000003"

    def test_a_save_that_breaks_off_leaves_the_last_one_in_place(self, save, tmp_path: Path):
        save(5)
        with pytest.raises(OSError, match="No space"):
            save(6, fails=True)
        assert checkpoint.latest(tmp_path) == tmp_path / "step_000005"
        assert not (tmp_path / "step_000006").exists()
        save(7)
        assert {path.name for path in tmp_path.iterdir()} == {"latest", "step_000005", "step_000007"}

    def test_the_same_step_saved_again_replaces_the_first(self, save, tmp_path: Path):
        save(5)
        path = save(5)
        assert checkpoint.restore(path, Engine(), RecentBank(3))["step"] == 5
        assert {path.name for path in tmp_path.iterdir()} == {"latest", "step_000005"}

    def test_a_missing_checkpoint_is_named_with_the_remedy(self, save, tmp_path: Path):
        shutil.rmtree(save(5))
        with pytest.raises(RunError, match=r"step_000005 is missing although .*latest names it; restore it"):
            checkpoint.latest(tmp_path)

    @pytest.mark.parametrize("file", ["engine/weight", "bank/rows.safetensors", "stream.json"])
    @pytest.mark.parametrize("content", [None, b"", b"{"])
    def test_a_damaged_file_is_an_error_that_names_the_checkpoint(self, save, tmp_path: Path, file, content):
        path = save(5)
        (path / file).unlink()
        if content is not None:
            (path / file).write_bytes(content)
        with pytest.raises(RunError, match=r"step_000005 cannot be read .*name an older one in latest"):
            checkpoint.restore(path, Engine(), RecentBank(3))
