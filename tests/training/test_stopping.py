"""A first signal asks for a stop, a second one ends everything at once."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from spml_dist.training import stopping
from tests.conftest import payload, work
from tests.spawn import spawn

SCRIPT = """
import subprocess, sys, time
from pathlib import Path
from spml_dist.training import stopping

folder = Path(sys.argv[1])
with stopping.on_signals(folder):
    child = subprocess.Popen(["sleep", "600"])
    print(child.pid, flush=True)
    while not (stopping.requested(folder) and sys.argv[2] == "obey"):
        time.sleep(0.05)
    child.kill()
print("saved", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_becomes_a_request_that_is_gone_afterwards(number, tmp_path: Path):
    before = signal.getsignal(number)
    with stopping.on_signals(tmp_path):
        assert not stopping.requested(tmp_path)
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert stopping.requested(tmp_path)
    assert not stopping.requested(tmp_path)
    assert signal.getsignal(number) is before


def test_a_request_from_before_is_not_taken_for_a_new_one(tmp_path: Path):
    (tmp_path / "stop").touch()
    with stopping.on_signals(tmp_path):
        assert not stopping.requested(tmp_path)


@pytest.fixture
def start(tmp_path: Path):
    def script(how: str) -> tuple[subprocess.Popen, psutil.Process]:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path), how], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return process, psutil.Process(int(process.stdout.readline()))

    return script


def test_one_signal_lets_the_work_end_in_order(start):
    process, _ = start("obey")
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b"saved\n")
    assert err == b"saving and stopping after this step; once more to stop at once\n"


def test_two_signals_end_it_and_what_it_started(start):
    process, child = start("ignore")
    process.terminate()
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 128 + signal.SIGINT
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_the_same_signal_twice_at_once_is_one_request(start):
    """`timeout` and launchers send it to the process and to its group."""
    process, _ = start("obey")
    process.terminate()
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.count(b"saving")) == (0, b"saved\n", 1)


def test_whoever_started_it_may_be_gone(start):
    process, _ = start("obey")
    process.stderr.close()
    process.terminate()
    assert (process.stdout.read(), process.wait(timeout=60)) == (b"saved\n", 0)


def test_after_a_while_it_ends_everything(start):
    process, child = start("ignore")
    process.terminate()
    process.stderr.readline()
    time.sleep(stopping.SAME_SECONDS + 0.5)
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    psutil.wait_procs([child], timeout=60)


def test_one_rank_that_is_asked_stops_all_after_that_step_logged_or_not(experiment, tmp_path: Path):
    words = experiment(tmp_path, "asked", "tracking.every=100", "checkpoint.every=100", "tracking.previews=0")
    outcome = spawn(train_until_asked, 2, payload(words), seconds=200)
    stop = "Stopped: saved step 3 and stopped; the same command goes on"
    assert outcome == [{"steps": [0, 1, 2], "error": stop}] * 2
    assert [path.name for path in (tmp_path / "asked" / "checkpoints").glob("step_*")] == ["step_000003"]
    logged = (tmp_path / "asked" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in logged] == [1, 3]


def train_until_asked(rank: int, words: dict) -> dict:
    """Rank 1 alone sees the request, before the third step."""
    looks = itertools.count(1)
    stopping.requested = lambda folder: next(looks) >= 3 and rank == 1
    return work(rank, [words])[0]


def test_a_signal_beside_rank_zero_is_a_request_once(tmp_path: Path):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stopping.on_later_signals(tmp_path)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            assert stopping.requested(tmp_path) == (number == signal.SIGTERM)
            (tmp_path / "stop").unlink(missing_ok=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_signal_to_the_whole_process_group_saves_although_loader_processes_hear_it_too(
    experiment, tmp_path: Path
):
    words = experiment(tmp_path, "group", "schedule.steps=100000", "tracking.previews=0")
    command = [sys.executable, "-m", "spml_dist", "train", *words, "stream.loader_processes=1", "--alone"]
    metrics = tmp_path / "group" / "metrics.jsonl"
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as run:
        try:
            deadline = time.monotonic() + 300
            while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
                time.sleep(0.05)
            started = psutil.Process(run.pid).children(recursive=True)
            for process in started:
                process.terminate()
            os.killpg(run.pid, signal.SIGINT)
            error = run.communicate(timeout=300)[1].decode()
        finally:
            run.kill()
    assert run.returncode == 75, error
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert (tmp_path / "group" / "checkpoints" / f"step_{last:06d}").is_dir()
    assert psutil.wait_procs(started, timeout=60)[1] == []
