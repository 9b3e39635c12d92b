"""SIGTERM to the process group of a training under torchrun: saved. On Ray: tests/cli/test_train.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

pytestmark = pytest.mark.timeout(1800)

TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend=c10d"]
TORCHRUN += ["--rdzv-endpoint=localhost:0"]


def test_a_training_under_torchrun_is_saved_although_it_hears_the_signal_twice(experiment, tmp_path):
    words = experiment(tmp_path, "torchrun", "schedule.steps=100000", "tracking.previews=0")
    metrics = tmp_path / "torchrun" / "metrics.jsonl"
    with subprocess.Popen(
        [sys.executable, *TORCHRUN, "-m", "spml_dist", "train", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        started: list[psutil.Process] = []
        try:
            deadline = time.monotonic() + 900
            while not (metrics.exists() and metrics.stat().st_size):
                assert run.poll() is None, run.stderr.read()
                assert time.monotonic() < deadline, "no step was logged"
                time.sleep(0.1)
            started = psutil.Process(run.pid).children(recursive=True)
            os.killpg(run.pid, signal.SIGTERM)
            error = run.communicate(timeout=600)[1]
            assert not psutil.wait_procs(started, timeout=60)[1]
        finally:
            for process in started:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            run.kill()
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert (tmp_path / "torchrun" / "checkpoints" / f"step_{last:06d}").is_dir(), error
    assert run.returncode != 0 and "saved step" in error  # the status is torchrun's own
