"""A worker that is killed: all start again, and in the end the run is what it would have been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1800)]

STEPS = 40
PASSING = ("time/", "timestamp", "images_per_s", "memory_mb", "eta_s")
"""what depends on the machine"""


def trained(words: list[str], folder: Path, disturb: Callable[[psutil.Process], None] | None = None) -> None:
    """Train on Ray to the end; disturb: is handed the process that launched it after step 7."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "spml_dist", "train", *words]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        try:
            while disturb and len(logged(folder)) < 7:
                assert run.poll() is None, run.stderr.read().decode()
                time.sleep(0.1)
            if disturb:
                disturb(psutil.Process(run.pid))
            error = run.communicate(timeout=1500)[1].decode()
        finally:
            run.kill()
    assert run.returncode == 0, error


def logged(folder: Path) -> list[dict]:
    path = folder / "metrics.jsonl"
    return list(map(json.loads, path.read_text().splitlines())) if path.exists() else []


def kill_a_worker(launcher: psutil.Process) -> None:
    workers = [each for each in launcher.children(recursive=True) if "RayTrainWorker" in each.name()]
    assert len(workers) == 2, [each.name() for each in launcher.children(recursive=True)]
    workers[-1].kill()


def test_the_run_goes_on_and_is_what_it_would_have_been(experiment, tmp_path: Path):
    changes = (f"schedule.steps={STEPS}", "checkpoint.every=5", "engine.workers=2", "tracking.previews=0")
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    trained(experiment(tmp_path, "undisturbed", *changes), undisturbed)
    trained(experiment(tmp_path, "killed", *changes), killed, kill_a_worker)
    outcome = [
        [{k: v for k, v in entry.items() if not k.startswith(PASSING)} for entry in logged(folder)]
        for folder in (undisturbed, killed)
    ]
    assert [entry["step"] for entry in outcome[1]] == list(range(1, STEPS + 1))
    assert outcome[0] == outcome[1]
    (failure,) = map(json.loads, (killed / "restarts.jsonl").read_text().splitlines())
    assert failure["step"] >= 7 and "rank" in failure["reason"]
    manifests = [
        json.loads((folder / "checkpoints" / f"step_{STEPS:06d}" / "bank" / "manifest.json").read_text())
        for folder in (undisturbed, killed)
    ]
    assert manifests[0]["digest"] == manifests[1]["digest"]
