"""One of two ranks dies, wherever it is at: the same command again ends in the run that nobody disturbed.

Processes of this machine without Ray, which starts them again by itself: test_worker_killed.py.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from spml_dist.training import checkpoint, checkpoint_writer, worker
from tests.conftest import payload, work
from tests.drills import faults
from tests.drills.same_run import assert_same
from tests.spawn import spawn
from tests.training.test_checkpoint import BRIEFLY

pytestmark = pytest.mark.timeout(1500)

STEP = 4
"""two checkpoints are behind it, and one is on its way to the disk or there"""
CHANGES = [*BRIEFLY, "schedule.steps=8"]


def killed(rank: int, words: dict, place: str) -> None:
    checkpoint_writer.GRACE = 0.5
    if rank == faults.PLACES[place]:
        faults.arm(place, STEP)
    work(rank, [words])


def wrong_clock_and_slow(rank: int, words: dict, other_release: dict) -> tuple[list, list]:
    """Rank 1's clock is an hour ahead, and rank 1 comes late to every step. Then it has another release."""
    clock, release = time.time, worker._release
    if rank == 1:
        time.time = lambda: clock() + 3600
        faults.arm("forward", 0, lambda: time.sleep(0.02))
    outcome = work(rank, [words])
    if rank == 1:
        worker._release = lambda: "spml-dist 0.0.9, " + release().split(", ", 1)[1]
    return outcome, work(rank, [other_release])


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def outcome(experiment, output: Path) -> dict[str, list]:
    """The undisturbed run, those that were killed and started again, and what a rank says of a release."""

    def run(name: str) -> dict:
        return payload(experiment(output, name, *CHANGES))

    for place in faults.PLACES:
        with pytest.raises((AssertionError, FileNotFoundError)):  # what the one that is left says, or nothing
            spawn(killed, 2, run(place), place, seconds=300)
    left = {place: checkpoint.latest(output / place / "checkpoints") for place in faults.PLACES}
    late = spawn(wrong_clock_and_slow, 2, run("late"), run("other_release"), seconds=300)
    again = spawn(work, 2, [run(name) for name in ("undisturbed", *faults.PLACES)], seconds=900)
    return {"again": again, "late": [each[0] for each in late], "release": [each[1][0] for each in late]} | {
        "left": left
    }


@pytest.mark.parametrize("place", faults.PLACES)
def test_a_killed_rank_changes_nothing(outcome, output: Path, place: str):
    assert outcome["left"][place].name in ("step_000002", "step_000004")
    for rank in outcome["again"]:
        result = rank[1 + list(faults.PLACES).index(place)]
        assert result["error"] is None and result["steps"] in ([*range(2, 8)], [*range(4, 8)])
    assert_same(output / place, output / "undisturbed")


def test_a_straggler_with_a_clock_an_hour_ahead_changes_nothing(outcome, output: Path):
    assert [rank[0]["error"] for rank in outcome["late"]] == [None, None]
    assert_same(output / "late", output / "undisturbed")


def test_a_node_with_another_release_is_refused_by_name(outcome):
    first, second = outcome["release"]
    assert first == second and first["steps"] == []
    assert first["error"].startswith(
        "RunError: the nodes of this run have different releases (got spml-dist "
    )
    assert "; spml-dist 0.0.9, torch" in first["error"] and "install the same on all" in first["error"]
