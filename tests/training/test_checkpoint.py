"""Stopped and started again, a run ends where it would have ended; a half-written checkpoint is none."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spml_dist import cli
from spml_dist.bank import snapshot_copy
from spml_dist.bank.recent import RecentBank
from spml_dist.bank.sharded import LookupPlan, ShardedBank
from spml_dist.config import load
from spml_dist.errors import RunError
from spml_dist.hashing import image_hash
from spml_dist.records import Candidates
from spml_dist.training import checkpoint, checkpoint_writer
from spml_dist.training.checkpoint_writer import CheckpointWriter
from tests.bank.builders import CLASSES, DIM, rows_of
from tests.conftest import SMALL, payload, work
from tests.spawn import spawn

VARIANTS = {
    "zero0": [],
    "zero1": [
        *("engine.zero_stage=1", "bank.exact_rows=20", "bank.capacity=240", "bank.partitions=2"),
        *("optimizer.kind=adamw", "optimizer.lr=0.001"),
    ],
    "zero2": [
        *("engine.zero_stage=2", "engine.accumulation=2", "bank.candidates=recent"),
        "engine.micro_batches=together",
    ],
}
"""with a bank of the data set; with one that has inverted files and is too small, and AdamW; with one of two
steps, and micro-batches"""
BRIEFLY = [
    "stream.crop=32",
    "schedule.steps=14",
    "checkpoint.every=2",
    "tracking.previews=0",
    "segments.iterations=2",
]
PASSING = ("time/", "timestamp", "images_per_s", "workers", "memory_mb", "eta_s")


class TestResume:
    """Fourteen steps by two gloo workers: straight; stopped and started again twice; and with three in the
    middle by one worker. Every start is in other processes."""

    pytestmark = pytest.mark.timeout(1500)

    @pytest.fixture(scope="class")
    def output(self, tmp_path_factory) -> Path:
        return tmp_path_factory.mktemp("runs")

    @pytest.fixture(scope="class")
    def outcome(self, experiment, output: Path) -> dict[str, list]:
        """What the ranks return of the first, second and third start of every stopped run."""

        def start(name: str, stop_before: int | None = None) -> dict:
            words = experiment(output, name, *BRIEFLY, *VARIANTS[name.split("-")[0]])
            return payload(words, stop_before)

        straight = [start(f"{name}-straight") for name in VARIANTS]
        first = spawn(work, 2, [start(f"{name}-stopped", 7) for name in VARIANTS] + straight, seconds=900)

        for name in VARIANTS:
            copy_run(output, f"{name}-stopped", f"{name}-moved")
        half_written = output / "zero0-stopped" / "checkpoints" / "step_000010.tmp"
        (half_written / "engine").mkdir(parents=True)
        (half_written / "stream.json").write_text('{"step": 10')
        copy_run(output, "zero0-stopped", "zero0-damaged")
        damaged = output / "zero0-damaged/checkpoints/step_000006/engine/weights.safetensors"
        damaged.write_bytes(damaged.read_bytes()[:5000])

        spawn(work, 1, [start(f"{name}-moved", 9) for name in VARIANTS], seconds=900)
        again = [start(f"{name}-stopped", 11) for name in VARIANTS]
        last = [start(f"{name}-stopped") for name in VARIANTS]
        moved = [start(f"{name}-moved", 10) for name in VARIANTS]
        later = spawn(work, 2, [*again, *last, *moved, start("zero0-damaged")], seconds=900)
        count = len(VARIANTS)
        return {
            "damaged": [rank[-1] for rank in later],
            **{
                name: [
                    [rank[i] for rank in ranks] for ranks, i in ((first, n), (later, n), (later, n + count))
                ]
                for n, name in enumerate(VARIANTS)
            },
        }

    @pytest.mark.parametrize("name", VARIANTS)
    def test_it_goes_on_after_the_last_checkpoint(self, outcome, name: str):
        first, second, third = outcome[name]
        assert first == [{"steps": [*range(7)], "error": "InterruptedError: before step 7"}] * 2
        assert second == [{"steps": [*range(6, 11)], "error": "InterruptedError: before step 11"}] * 2
        assert third == [{"steps": [*range(10, 14)], "error": None}] * 2

    @pytest.mark.parametrize("name", VARIANTS)
    def test_the_exported_network_is_the_same_to_the_bit(self, outcome, output: Path, name: str):
        one, other = (
            (output / f"{name}-{how}" / "export" / "model.safetensors").read_bytes()
            for how in ("straight", "stopped")
        )
        assert one == other

    @pytest.mark.parametrize("name", VARIANTS)
    def test_so_is_the_last_checkpoint(self, outcome, output: Path, name: str):
        """Weights, statistics of the batch norms, momentum, bank and place in the stream."""
        one, other = (
            files(output / f"{name}-{how}" / "checkpoints" / "step_000014") for how in ("straight", "stopped")
        )
        assert one.keys() == other.keys() > {"engine/weights.safetensors", "stream.json"}
        assert [part for part in one if one[part] != other[part] and part != "config.yaml"] == []

    def test_the_banks_are_those_of_the_configurations(self, outcome, output: Path):
        banks = {
            name: {path.stem for path in (output / f"{name}-stopped/checkpoints/step_000014/bank").iterdir()}
            for name in VARIANTS
        }
        indexes = {f"index_0000{rank}_of_00002" for rank in range(2)}
        assert banks["zero0"] > {"manifest"} and not banks["zero0"] & indexes
        assert banks["zero1"] > {"manifest"} | indexes
        assert banks["zero2"] == {"rows"}

    @pytest.mark.parametrize("name", VARIANTS)
    def test_every_step_is_logged_once_with_the_numbers_of_the_straight_run(
        self, outcome, output: Path, name
    ):
        assert [entry["step"] for entry in log(output, f"{name}-stopped")] == [*range(1, 15)]
        assert log(output, f"{name}-stopped") == log(output, f"{name}-straight")

    @pytest.mark.parametrize("name", VARIANTS)
    def test_one_worker_goes_on_for_two_and_two_for_one_with_the_same_losses(
        self, outcome, output: Path, name
    ):
        """A few steps after a change: sums in another order may give a pixel to another cluster later."""
        straight, moved = log(output, f"{name}-straight"), log(output, f"{name}-moved")
        assert [entry["step"] for entry in moved] == [*range(1, 11)]
        assert moved[:6] == straight[:6]
        losses = ([entry["loss"] for entry in entries[:10]] for entries in (moved, straight))
        assert next(losses) == pytest.approx(next(losses), rel=1e-5)

    def test_it_stays_one_run_in_mlflow(self, outcome, output: Path):
        for name in VARIANTS:  # a busy machine may have left a training without the time to send all
            for how in ("straight", "stopped"):
                assert cli.main(["track", str(output / f"{name}-{how}")]) == 0
        with sqlite3.connect(output / "mlflow.db") as database:
            rows = database.execute("select name, status from runs where name like '%-st%'").fetchall()
        assert sorted(rows) == sorted(
            (f"{name}-{how}", "FINISHED") for name in VARIANTS for how in ("straight", "stopped")
        )

    def test_what_was_half_written_is_gone_and_the_newest_are_kept(self, outcome, output: Path):
        folder = output / "zero0-stopped" / "checkpoints"
        assert {path.name for path in folder.iterdir()} == {"latest", "step_000012", "step_000014"}
        assert (folder / "latest").read_text() == "step_000014\n"

    def test_a_damaged_checkpoint_is_named_by_every_rank(self, outcome, output: Path):
        for rank in outcome["damaged"]:
            assert rank["steps"] == []
            assert rank["error"].startswith(
                f"RunError: {output}/zero0-damaged/checkpoints/step_000006 cannot be read"
            )
            assert "name an older one in latest" in rank["error"]


def copy_run(output: Path, name: str, copy: str) -> None:
    """A run folder under another name, as if that had been its own from the start."""
    shutil.copytree(output / name, output / copy)
    (output / copy / "mlflow.json").unlink()
    config = output / copy / "config.yaml"
    config.write_text(config.read_text().replace(f"name: {name}", f"name: {copy}"))


def files(folder: Path) -> dict[str, bytes]:
    """Contents by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def log(output: Path, name: str) -> list[dict]:
    """The logged steps, without what depends on the machine."""
    lines = (output / name / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(PASSING)} for line in lines]


class Engine:
    """Its state is one number."""

    def __init__(self, weight: float = 0.0):
        self.weight = weight

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"weights": {"w": torch.tensor(self.weight)}, "momentum": {"w": torch.tensor(-self.weight)}}


def no_space(tensors, path: Path) -> None:
    """Part of the file is written."""
    path.write_bytes(b"half")
    raise OSError(28, "No space left on device")


def global_bank(**changes) -> ShardedBank:
    """Empty, with room for 64 images."""
    settings = load(SMALL).bank.model_copy(update=changes)
    return ShardedBank(settings, DIM, CLASSES, LookupPlan((), False, ()), 0, torch.device("cpu"))


def bank_of(*steps: int) -> RecentBank:
    bank = RecentBank(3)
    for step in steps:
        rows = torch.full((2, 4), float(step)), torch.tensor([0, 254]), torch.zeros(2, 3, dtype=torch.bool)
        bank.add(
            Candidates(
                *rows, torch.ones(2, dtype=torch.bool), torch.tensor([step, step]), torch.zeros(2).long()
            )
        )
    return bank


class TestFolder:
    """Without DeepSpeed: what is on disk after a save, whole or broken off."""

    @pytest.fixture
    def save(self, tmp_path: Path) -> Callable[..., Path]:
        def write(step: int, keep: int = 2, bank: RecentBank | ShardedBank | None = None) -> Path:
            config = load(SMALL, [f"checkpoint.keep={keep}"])
            state = {"step": step, "fingerprint": "f"}
            bank = bank_of(1, step) if bank is None else bank
            writer = CheckpointWriter(tmp_path, config)
            path = writer.begin(Engine(step), bank, state)
            writer.finish()
            return path

        return write

    def test_nothing_is_the_latest_of_nothing(self, tmp_path: Path):
        assert checkpoint.latest(tmp_path) is None
        assert checkpoint.latest(tmp_path / "absent") is None

    def test_what_was_saved_comes_back(self, save, tmp_path: Path):
        assert save(7) == checkpoint.latest(tmp_path) == tmp_path / "step_000007"
        saved, bank = checkpoint.read(tmp_path / "step_000007"), bank_of(4)
        assert saved.stream == {"step": 7, "fingerprint": "f"}
        assert (saved.engine["weights"]["w"], saved.engine["momentum"]["w"]) == (7, -7)
        bank.restore(tmp_path / "step_000007" / "bank")
        assert [rows.image.tolist() for rows in bank.rows()] == [[1, 1], [7, 7]]

    def test_an_empty_bank_comes_back_empty(self, save):
        bank = bank_of(3)
        bank.restore(save(1, bank=RecentBank(0)) / "bank")
        assert len(bank) == 0

    def test_so_does_a_bank_of_the_whole_data_set(self, save):
        bank, again = global_bank(), global_bank()
        bank.add(rows_of(["a", "b"], [3, 4]), ["a", "b"])
        path = save(7, bank=bank)
        again.restore(path / "bank")
        assert len(again) == 7 and again.store.slots_of(image_hash(["b"]).item()).size == 4
        assert not (path / "bank" / "rows.safetensors").exists()

    def test_a_bank_of_the_other_kind_is_refused(self, save):
        message = r"bank.candidates asks for another bank than .*step_00000{}.*{}.*{}/config.yaml has it"
        path = save(1)
        with pytest.raises(RunError, match=message.format(1, r"last steps \(got nearest\+sampled\)", path)):
            global_bank().restore(path / "bank")
        path = save(2, bank=global_bank())
        with pytest.raises(RunError, match=message.format(2, r"whole data set \(got recent\)", path)):
            bank_of().restore(path / "bank")

    @pytest.mark.parametrize("keep", [1, 2, 3])
    def test_the_newest_are_kept_by_number_not_by_name(self, save, tmp_path: Path, keep: int):
        steps = (999_997, 999_998, 999_999, 1_000_000)
        for step in steps:
            save(step, keep)
        kept = {f"step_{step:06d}" for step in steps[-keep:]}
        assert {path.name for path in tmp_path.iterdir()} == kept | {"latest"}
        assert checkpoint.latest(tmp_path).name == "step_1000000"

    def test_a_copy_under_a_name_of_its_own_stays(self, save, tmp_path: Path):
        save(2)
        (tmp_path / "step_000002").rename(tmp_path / "step_000002.keep")
        for step in (4, 6):
            save(step, keep=1)
        assert {path.name for path in tmp_path.iterdir()} == {"step_000002.keep", "step_000006", "latest"}

    def test_after_a_return_to_an_older_one_the_newest_is_what_was_written_last(self, save, tmp_path: Path):
        for step in (2, 4, 6):
            save(step, keep=3)
        (tmp_path / "latest").write_text("step_000002\n")
        save(3, keep=1)
        assert checkpoint.latest(tmp_path) == tmp_path / "step_000003"

    def test_a_full_disk_is_named_and_leaves_the_last_one_in_place(self, save, tmp_path: Path, monkeypatch):
        save(5)
        with monkeypatch.context() as full:
            full.setattr(checkpoint_writer, "save_file", no_space)
            with pytest.raises(RunError, match=r"step_000006 cannot be written .*No space.*; make room"):
                save(6)
        with monkeypatch.context() as full:
            full.setattr(snapshot_copy, "save_file", no_space)
            bank = global_bank()
            bank.add(rows_of(["a"], [3]), ["a"])
            with pytest.raises(RunError, match=r"step_000006.tmp/bank cannot be written .*No space"):
                save(6, bank=bank)
        assert checkpoint.latest(tmp_path) == tmp_path / "step_000005"
        assert not (tmp_path / "step_000006").exists()
        save(7)
        assert {path.name for path in tmp_path.iterdir()} == {"latest", "step_000005", "step_000007"}

    def test_the_same_step_saved_again_replaces_the_first(self, save, tmp_path: Path):
        save(5)
        path = save(5)
        assert checkpoint.read(path).stream["step"] == 5
        assert {path.name for path in tmp_path.iterdir()} == {"latest", "step_000005"}

    def test_a_missing_checkpoint_is_named_with_the_remedy(self, save, tmp_path: Path):
        shutil.rmtree(save(5))
        with pytest.raises(RunError, match=r"step_000005 is missing although .*latest names it; restore it"):
            checkpoint.latest(tmp_path)

    @pytest.mark.parametrize("text", ["", "\n", "step_", "../step_000002", "\0" * 9])
    def test_a_damaged_name_of_the_latest_is_told_with_those_that_are_there(self, save, tmp_path, text):
        for step in (2, 4):
            save(step, keep=2)
        (tmp_path / "latest").write_text(text)
        message = r"latest names no checkpoint .*write the name of .*: step_000002, step_000004"
        with pytest.raises(RunError, match=message):
            checkpoint.latest(tmp_path)

    def test_without_the_name_of_the_latest_it_is_the_newest(self, save, tmp_path: Path):
        for step in (2, 4):
            save(step, keep=2)
        (tmp_path / "latest").unlink()
        assert checkpoint.latest(tmp_path) == tmp_path / "step_000004"

    @pytest.mark.parametrize(
        "file", ["engine/weights.safetensors", "engine/momentum.safetensors", "bank/rows.safetensors"]
    )
    @pytest.mark.parametrize("left", [None, 0, 20, -1])
    def test_a_file_that_is_gone_or_cut_is_named(self, save, file, left):
        path = save(5)
        checkpoint.require_whole(path)
        cut(path / file, left)
        with pytest.raises(RunError, match=rf"{file} cannot be (read|used)"):
            checkpoint.require_whole(path)

    @pytest.mark.parametrize("left", [None, 0, -1])
    def test_so_is_one_of_a_bank_of_the_whole_data_set(self, save, left):
        bank = global_bank()
        bank.add(rows_of(["a", "b"], [3, 4]), ["a", "b"])
        path = save(7, bank=bank)
        checkpoint.require_whole(path)
        file = next((path / "bank").glob("shard_*"))
        cut(file, left)
        with pytest.raises(RunError, match=rf"{file.name} cannot be used"):
            checkpoint.require_whole(path)

    @pytest.mark.parametrize("state", ["[]", "null", "{}", '{"step": "5"}', '{"step": -1}'])
    def test_where_the_stream_goes_on_is_a_step(self, save, state):
        path = save(5)
        (path / "stream.json").write_text(state)
        with pytest.raises(RunError, match="holds no step"):
            checkpoint.stream_state(path)

    @pytest.mark.parametrize("file", ["engine/weights.safetensors", "bank/rows.safetensors", "stream.json"])
    @pytest.mark.parametrize("content", [None, b"", b"{"])
    def test_a_damaged_file_is_an_error_that_names_the_checkpoint(self, save, tmp_path: Path, file, content):
        path = save(5)
        (path / file).unlink()
        if content is not None:
            (path / file).write_bytes(content)
        with pytest.raises(RunError, match=r"step_000005.* cannot be (read|used) .*older .*in latest"):
            checkpoint.read(path)
            bank_of().restore(path / "bank")

    def test_a_bank_that_lacks_a_field_is_such_a_file(self, save):
        path = save(5)
        save_file({"0.prototype": torch.ones(2, 4)}, path / "bank" / "rows.safetensors")
        with pytest.raises(RunError, match=r"step_000005/bank/rows.safetensors cannot be used"):
            bank_of().restore(path / "bank")


def cut(file: Path, left: int | None) -> None:
    """Leave so many bytes of a file, None = no file."""
    content = file.read_bytes()
    file.unlink()
    if left is not None:
        file.write_bytes(content[:left])


def save_with_one_full_disk(rank: int, folder: Path) -> list[str]:
    """Two ranks save: first rank 0's disk is full, then rank 1's, then none. What this one says."""
    message, config, bank = [], load(SMALL), global_bank()
    own = [key for key in "abcdefgh" if image_hash([key]).item() % 64 * 2 // 64 == rank]
    bank.add(rows_of(own, [3] * len(own)), own)
    write = checkpoint_writer.save_file
    for full in (0, 1, None):
        checkpoint_writer.save_file = snapshot_copy.save_file = no_space if rank == full else write
        try:
            writer = CheckpointWriter(folder, config)
            writer.begin(Engine(), bank, {"step": 1, "fingerprint": "f"})
            writer.finish()
            message.append("")
        except RunError as problem:
            message.append(str(problem))
    return message


@pytest.mark.timeout(600)
def test_a_full_disk_of_one_rank_is_an_error_of_all(tmp_path: Path):
    first, second = spawn(save_with_one_full_disk, 2, tmp_path, seconds=300)
    assert first == second
    assert all("step_000001" in message and "No space" in message for message in first[:2]) and first[2] == ""
    assert checkpoint.latest(tmp_path) == tmp_path / "step_000001"
