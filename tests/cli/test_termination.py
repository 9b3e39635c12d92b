"""SIGTERM to all processes of a training, as srun, scancel and systemd send it: saved, exit status 75."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(1800)

TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend=c10d"]
TORCHRUN += ["--rdzv-endpoint=localhost:0"]


def to_group(run: subprocess.Popen, started: list[psutil.Process]) -> None:
    os.killpg(run.pid, signal.SIGTERM)


def to_each(run: subprocess.Popen, started: list[psutil.Process]) -> None:
    for process in (*started, run):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)


def terminated(
    words: list[str],
    folder: Path,
    how: Callable[[subprocess.Popen, list[psutil.Process]], None],
    launcher: list[str] = (),
) -> tuple[int, str]:
    """Exit status and stderr of a training that is terminated after its first logged step.

    Every process that it had started is gone afterwards.
    """
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, *launcher, "-m", "spml_dist", "train", *words]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, env=environment
    ) as run:
        started: list[psutil.Process] = []
        try:
            metrics, deadline = folder / "metrics.jsonl", time.monotonic() + 900
            while not (metrics.exists() and metrics.stat().st_size):
                assert run.poll() is None, run.stderr.read().decode()
                assert time.monotonic() < deadline, "no step was logged"
                time.sleep(0.1)
            started = psutil.Process(run.pid).children(recursive=True)
            how(run, started)
            error = run.communicate(timeout=600)[1].decode()
            alive = psutil.wait_procs(started, timeout=60)[1]
        finally:
            for process in started:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            run.kill()
    assert not alive
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert (folder / "checkpoints" / f"step_{last:06d}").is_dir(), error
    return run.returncode, error


def test_a_training_on_ray_is_saved_though_every_process_hears_it_and_leaves_nothing_behind(
    experiment, tmp_path
):
    """To the process group alone: tests/cli/test_train.py."""
    words = experiment(tmp_path, "ray", "schedule.steps=100000", "tracking.previews=0", "engine.workers=2")
    status, error = terminated(words, tmp_path / "ray", to_each)
    assert (status, error.count("Traceback")) == (75, 0), error
    assert error.splitlines()[0].startswith("saving and stopping after this step")
    assert error.splitlines()[-1].startswith("spml-dist: saved step")


def test_a_training_under_torchrun_is_saved_although_it_hears_the_signal_twice(experiment, tmp_path):
    words = experiment(tmp_path, "torchrun", "schedule.steps=100000", "tracking.previews=0")
    status, error = terminated(words, tmp_path / "torchrun", to_group, TORCHRUN)
    assert status != 0 and "saved step" in error  # the status is torchrun's own
