"""`cluster/slurm.sbatch`, run with stand-ins for Slurm, Ray and the training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm.sbatch"
SRUN = 'echo "srun $*" >>"$CALLS"; while [[ $1 != "$PYTHON" ]]; do shift; done; exec "$@"'
SCONTROL = """\
echo "scontrol $*" >>"$CALLS"
[[ $1 != show ]] || printf '%s\\n' a1 a2 a3"""
PYTHON = """\
case $* in
  *" --head "*) exec {python} -c 'import socket, sys, time
port = int(sys.argv[sys.argv.index("--port") + 1])
with socket.create_server(("127.0.0.1", port)): time.sleep(60)' "$@" ;;
  *" --address "*) exec sleep 60 ;;
  *" spml_dist "*) echo "train in $PWD at $RAY_ADDRESS with $(<"$RAY_AUTH_TOKEN_PATH")" >>"$CALLS"
     echo "words $*" >>"$CALLS"
     {training} ;;
  *) exec {python} "$@" ;;
esac"""
SAVING = "trap 'sleep 0.2; exit 75' TERM; echo started >>\"$CALLS\"; while true; do sleep 0.05; done"


@dataclass
class Job:
    process: subprocess.Popen
    calls: Path

    def wait(self) -> tuple[int, list[str]]:
        """Exit status, and what was called."""
        status = self.process.wait(timeout=120)  # not for its stderr, which the nodes of Ray hold too
        assert "Traceback" not in self.error(), self.error()
        return status, self.calls.read_text().splitlines()

    def error(self) -> str:
        return self.calls.with_name("error").read_text()


@pytest.fixture
def sbatch(tmp_path: Path):
    """Run the script as Slurm does on the first of three nodes. training: in bash, in the verb's place."""
    jobs = []

    def start(training: str, *words: str, gpus: str = "2") -> Job:
        scripts = {
            "srun": SRUN,
            "scontrol": SCONTROL,
            "python": PYTHON.format(python=sys.executable, training=training),
        }
        for name, text in scripts.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
            (tmp_path / name).chmod(0o755)
        (tmp_path / "calls").touch()
        environment = os.environ | {
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "PYTHON": str(tmp_path / "python"),
            "CALLS": str(tmp_path / "calls"),
            "SPML_HEAD_IP": "127.0.0.1",
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NODELIST": "a[1-3]",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_GPUS_ON_NODE": gpus,
            "SLURM_CPUS_PER_TASK": "16",
        }
        command = ["bash", str(SCRIPT), *words]
        with (tmp_path / "error").open("w") as error:
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=error, start_new_session=True
            )
        jobs.append(process)
        return Job(process, tmp_path / "calls")

    yield start
    for process in jobs:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what Slurm does when a batch script has ended


def test_a_head_a_worker_node_on_each_other_one_and_the_training_here(sbatch, tmp_path: Path):
    status, calls = sbatch("exit 0", "configs/mine.yaml", "engine.workers=6").wait()
    assert status == 0
    head, others = sorted(
        (call for call in calls if call.startswith("srun")), key=lambda call: "--head" not in call
    )
    assert "--nodelist a1" in head and "--num-cpus 16 --num-gpus 2 --head --node-ip-address 127.0.0.1" in head
    assert "--nodes 2 --ntasks 2 --nodelist a2,a3" in others and "--address 127.0.0.1:" in others
    train, words = (next(call for call in calls if call.startswith(kind)) for kind in ("train", "words"))
    assert f"train in {tmp_path} at 127.0.0.1:" in train
    assert words == "words -m spml_dist train configs/mine.yaml engine.device=cuda engine.workers=6"
    assert not list(tmp_path.glob(".ray-token-*")), "the token goes with the job"


def test_without_gpus_workers_compute_where_they_can(sbatch):
    _, calls = sbatch("exit 0", "configs/mine.yaml", gpus="0").wait()
    assert any("engine.device=auto" in call for call in calls)


def test_before_the_limit_the_training_saves_and_the_job_is_queued_again(sbatch):
    job = sbatch(SAVING, "configs/mine.yaml")
    deadline = time.monotonic() + 60
    while "started" not in job.calls.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    job.process.terminate()
    status, calls = job.wait()
    assert (status, calls[-1]) == (75, f"scontrol requeue {os.getpid()}")


@pytest.mark.parametrize("status", [0, 2, 1])
def test_any_other_end_is_the_job_s_own(sbatch, status):
    ended, calls = sbatch(f"exit {status}", "configs/mine.yaml").wait()
    assert ended == status and not any("requeue" in call for call in calls)


def test_a_call_without_an_experiment_is_one_line(sbatch):
    job = sbatch("exit 0")
    assert job.wait() == (2, []) and job.error().startswith("slurm.sbatch: error: no CONFIG given")
