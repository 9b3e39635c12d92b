"""A worker that is killed, on a Ray that the training has started itself: all start again, and in the end the
run is what it would have been.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest

from tests.drills.running import finish, made_again, record, resumed_from, training
from tests.drills.same_run import assert_same, seconds_to_go_on

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1800)]

STEPS = 40


def kill_a_worker(launcher: psutil.Process) -> None:
    workers = [each for each in launcher.children(recursive=True) if "RayTrainWorker" in each.name()]
    assert len(workers) == 2, [each.name() for each in launcher.children(recursive=True)]
    workers[-1].kill()


def test_the_run_goes_on_and_is_what_it_would_have_been(experiment, tmp_path: Path):
    changes = (f"schedule.steps={STEPS}", "checkpoint.every=5", "engine.workers=2", "tracking.previews=0")
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    finish(undisturbed, experiment(tmp_path, "undisturbed", *changes))
    with training(killed, experiment(tmp_path, "killed", *changes)) as run:
        run.wait_for_step(7)
        kill_a_worker(psutil.Process(run.process.pid))
        died = time.time()
        status, error = run.end()
    assert status == 0, error
    assert_same(killed, undisturbed)
    (failure,) = map(json.loads, (killed / "restarts.jsonl").read_text().splitlines())
    (start,), step = resumed_from(killed), failure["step"]
    assert step >= 7 and "rank" in failure["reason"]
    done = f"SIGKILL to one of two workers of this machine after step {step}"
    record("worker killed", done, made_again(step, start), seconds_to_go_on(killed, died, step))
