"""A training that loses a worker goes on with one, saves when there is room again, and goes on with two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spml_dist.run_folder import RunFolder
from spml_dist.training import stopping
from tests.conftest import payload, work
from tests.spawn import spawn

pytestmark = pytest.mark.timeout(900)

STAGES = (1, 3)
"""of ZeRO, by which workers share out what a run consists of"""
BRIEFLY = ("stream.crop=32", "schedule.steps=8", "checkpoint.every=2", "tracking.previews=0")


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def outcome(experiment, output: Path) -> list[list]:
    """What the ranks return of two workers of which one is lost before step 5, of one, and of two again."""

    def start(name: str, stop_before: int | None = None) -> dict:
        stage, workers = f"engine.zero_stage={name[-1]}", "engine.workers=[1, 2]"
        return payload(experiment(output, name, *BRIEFLY, stage, workers), stop_before)

    names = [f"elastic{stage}" for stage in STAGES]
    straight = [start(f"straight{stage}") for stage in STAGES]
    lost = spawn(work, 2, [start(name, 5) for name in names] + straight, seconds=400)
    for name in names:
        stopping.ask_growth(output / name, True)
    fewer = spawn(work, 1, [start(name) for name in names], seconds=400)
    for name in names:
        stopping.ask_growth(output / name, False)
    again = spawn(work, 2, [start(name) for name in names], seconds=400)
    return [[rank[: len(STAGES)] for rank in ranks] for ranks in (lost, fewer, again)]


def logged(folder: Path) -> list[dict]:
    return list(map(json.loads, RunFolder(folder).metrics.read_text().splitlines()))


def test_growing_costs_no_step(outcome):
    lost, fewer, again = outcome
    assert all(each["steps"] == [0, 1, 2, 3, 4] for rank in lost for each in rank)
    saved = {"steps": [4], "error": "Stopped: saved step 5 and stopped; the same command goes on"}
    assert fewer == [[saved] * len(STAGES)]
    assert again == [[{"steps": [5, 6, 7], "error": None}] * len(STAGES)] * 2


@pytest.mark.parametrize("stage", STAGES)
def test_it_is_the_run_that_nobody_disturbed(outcome, output: Path, stage: int):
    elastic, straight = (logged(output / f"{name}{stage}") for name in ("elastic", "straight"))
    assert [(entry["step"], entry["workers"]) for entry in elastic] == [
        (step, 1 if step == 5 else 2) for step in range(1, 9)
    ]
    losses = [[entry["loss"] for entry in entries] for entries in (elastic, straight)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    digests = [
        json.loads((output / f"{name}{stage}/checkpoints/step_000008/bank/manifest.json").read_text())["rows"]
        for name in ("elastic", "straight")
    ]
    assert digests[0] == digests[1] > 0
