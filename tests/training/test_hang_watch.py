"""A rank that does not come: the others say so, with every rank's stack, and all end."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest
import torch

from spml_dist import comm
from spml_dist.training import hang_watch
from tests.spawn import spawn


def lost_in_the_second_step(rank: int, folder: Path) -> None:
    hang_watch.GRACE = 1.0
    with hang_watch.watched(folder / "logs", 3.0, partial(note, folder / "train.log")) as alive:
        alive(1)
        comm.sum_all(torch.ones(()))
        if rank == 1:
            fetch_a_batch()
        comm.sum_all(torch.ones(()))


def fetch_a_batch() -> None:
    time.sleep(600)


def note(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text + "\n")


def test_it_is_named_and_every_stack_is_in_a_log(tmp_path: Path):
    with pytest.raises(FileNotFoundError):  # both have ended, and neither with an answer
        spawn(lost_in_the_second_step, 2, tmp_path, seconds=100)
    logs = tmp_path / "logs"
    message = f"no step for 3 s after step 1: rank 1 did not come; stacks are in {logs}\n"
    assert (tmp_path / "train.log").read_text() == message
    first, second = ((logs / f"rank_{rank:05d}.log").read_text() for rank in (0, 1))
    assert "all_reduce" in first and "fetch_a_batch" in second and "fetch_a_batch" not in first


def steady(rank: int, folder: Path) -> str:
    with hang_watch.watched(folder / "logs", 1.0, pytest.fail, pytest.fail) as alive:
        for done in range(12):
            alive(done)
            time.sleep(0.15)
    time.sleep(1.2)
    return "done"


def test_as_long_as_steps_are_made_nobody_is_missed(tmp_path: Path):
    assert spawn(steady, 2, tmp_path, seconds=100) == ["done"] * 2
    assert not (tmp_path / "logs").exists()


def test_a_process_alone_waits_for_nobody(tmp_path: Path):
    with hang_watch.watched(tmp_path, 0.1, pytest.fail, pytest.fail):
        time.sleep(0.4)
    assert not list(tmp_path.iterdir())
