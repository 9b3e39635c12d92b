"""Steps go on while a checkpoint is written; it is of its step, and whole or not there."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import torch

from spml_dist.config import load
from spml_dist.errors import RunError
from spml_dist.training import checkpoint, checkpoint_writer, loop
from spml_dist.training.checkpoint_writer import CheckpointWriter
from tests.conftest import SMALL, payload, work
from tests.spawn import spawn
from tests.training.test_checkpoint import bank_of, no_space

SECONDS = 60
"""longer than anything here takes"""


class Engine:
    """Its weight is changed in place by every step."""

    def __init__(self):
        self.weight = torch.zeros(3)

    def step(self) -> None:
        self.weight += 1

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"weights": {"w": self.weight}, "momentum": {"w": self.weight}}


class SlowDisk:
    """Writes nothing before it is released."""

    def __init__(self, monkeypatch):
        self.write, self.free, self.reached = (
            checkpoint_writer.save_file,
            threading.Event(),
            threading.Event(),
        )
        monkeypatch.setattr(checkpoint_writer, "save_file", self)

    def __call__(self, *given) -> None:
        self.reached.set()
        assert self.free.wait(SECONDS)
        self.write(*given)


@pytest.fixture
def disk(monkeypatch):
    disk = SlowDisk(monkeypatch)
    yield disk
    disk.free.set()


@pytest.fixture
def writer(tmp_path: Path):
    writer = CheckpointWriter(tmp_path, load(SMALL, ["checkpoint.keep=9"]))
    yield writer
    writer.close()


def begin(writer: CheckpointWriter, engine: Engine, step: int) -> Path:
    return writer.begin(engine, bank_of(1, step), {"step": step, "fingerprint": "f"})


def test_a_step_does_not_wait_for_the_disk_and_the_checkpoint_is_of_its_step(writer, disk, tmp_path):
    engine = Engine()
    engine.step()
    path = begin(writer, engine, 1)
    assert disk.reached.wait(SECONDS)
    engine.step()
    assert not writer.failed() and checkpoint.latest(tmp_path) is None and not path.exists()
    disk.free.set()
    writer.finish()
    assert checkpoint.latest(tmp_path) == path
    saved = checkpoint.read(path)
    assert saved.engine["weights"]["w"].tolist() == saved.engine["momentum"]["w"].tolist() == [1, 1, 1]
    assert sorted(file.name for file in path.iterdir()) == ["bank", "config.yaml", "engine", "stream.json"]


def test_the_next_one_waits_for_the_one_before(writer, disk, tmp_path):
    engine = Engine()
    begin(writer, engine, 1)
    with ThreadPoolExecutor(1) as beside:
        second = beside.submit(begin, writer, engine, 2)
        assert not wait([second], timeout=0.2).done
        disk.free.set()
        assert second.result(SECONDS).name == "step_000002"
    assert (tmp_path / "step_000001").is_dir()
    writer.finish()
    assert checkpoint.latest(tmp_path).name == "step_000002"


def test_what_cannot_be_written_is_known_and_told_once(writer, tmp_path, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(checkpoint_writer, "save_file", no_space)
        begin(writer, Engine(), 1)
        wait(writer._tasks)
        assert writer.failed()
        with pytest.raises(RunError, match=r"step_000001 cannot be written .*No space.*; make room"):
            writer.finish()
    assert not writer.failed() and checkpoint.latest(tmp_path) is None
    begin(writer, Engine(), 2)
    writer.finish()
    assert {path.name for path in tmp_path.iterdir()} == {"step_000002", "latest"}


def test_something_else_that_ends_the_training_lets_it_become_whole(tmp_path):
    writer = CheckpointWriter(tmp_path, load(SMALL))
    path = begin(writer, Engine(), 1)
    writer.close()
    assert checkpoint.latest(tmp_path) == path


def test_a_training_that_cannot_write_ends_with_the_next_step(experiment, tmp_path, monkeypatch):
    words = experiment(tmp_path, "full", "checkpoint.every=3", "schedule.steps=30", "tracking.previews=0")
    monkeypatch.setattr(checkpoint_writer, "save_file", no_space)
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")  # `work` sets them too; so they are gone afterwards
    make_step = loop.make_step

    def once_it_is_known(run, *rest):
        wait(run.checkpoints._tasks)
        return make_step(run, *rest)

    monkeypatch.setattr(loop, "make_step", once_it_is_known)
    (outcome,) = work(0, [payload(words)])
    assert outcome["steps"] == [0, 1, 2, 3]
    assert outcome["error"].startswith(f"RunError: {tmp_path}/full/checkpoints/step_000003 cannot be written")


def lose_rank_one(rank: int, folder: Path) -> list[str]:
    """Rank 1 cannot write; rank 0, which waits for its note, hears of it. The same as the run breaks off."""
    checkpoint_writer.GRACE = 0.2
    writer, write, said = CheckpointWriter(folder, load(SMALL)), checkpoint_writer._Write._write_part, []

    def part(self) -> None:
        if rank == 1:
            no_space({}, folder / "half")
        write(self)

    checkpoint_writer._Write._write_part = part
    begin(writer, Engine(), 1)
    try:
        writer.finish()
    except RunError as error:
        said.append(str(error))
    checkpoint_writer._Write._write_part = write
    begin(writer, Engine(), 2)
    writer.finish()
    checkpoint_writer._Write._write_part = part
    begin(writer, Engine(), 3)
    writer.close()
    return [*said, checkpoint.latest(folder).name]


@pytest.mark.timeout(200)
def test_a_rank_that_does_not_write_keeps_no_other_waiting(tmp_path):
    first, second = spawn(lose_rank_one, 2, tmp_path, seconds=150)
    assert first == second and "step_000001 cannot be written" in first[0] and first[1:] == ["step_000002"]


def leave_while_rank_zero_writes(rank: int, folder: Path) -> str | None:
    """Rank 1 is done with its part, and the training with rank 1; rank 0 has half a second to go."""
    write, writer = checkpoint_writer._Write._write_whole, CheckpointWriter(folder, load(SMALL))

    def whole(self, parts) -> None:
        time.sleep(0.5)
        write(self, parts)

    checkpoint_writer._Write._write_whole = whole
    begin(writer, Engine(), 1)
    writer.close()
    newest = checkpoint.latest(folder)
    return newest.name if newest else None


@pytest.mark.timeout(200)
def test_a_rank_leaves_no_sooner_than_its_checkpoint_is_whole(tmp_path):
    """A launcher ends the others with the first that leaves."""
    assert spawn(leave_while_rank_zero_writes, 2, tmp_path, seconds=150) == ["step_000001"] * 2
