"""MLflow's server is killed while a training sends to it, and comes back: the training goes on all the while,
and sends what was missed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.cluster.conftest import free_ports
from tests.drills.running import record, training
from tests.drills.same_run import logged
from tests.training.test_checkpoint import BRIEFLY

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1800)]

STEPS = 250


def test_the_mlflow_server_goes_and_comes_back(experiment, tmp_path: Path):
    (port,) = free_ports(1)
    uri, folder = f"http://127.0.0.1:{port}", tmp_path / "run"
    given = experiment(tmp_path, "run", *BRIEFLY, f"schedule.steps={STEPS}", f"tracking.uri={uri}")
    with ExitStack() as first:
        first.enter_context(served(tmp_path, port))
        with training(folder, [*given, "--alone"]) as run:
            run.wait_for_step(5)
            run.wait_for(lambda: steps_in(uri, folder) != [])
            killed = logged(folder)[-1]["step"]
            first.close()
            run.wait_for(lambda: "training goes on" in (folder / "train.log").read_text())
            away = logged(folder)[-1]["step"]
            run.wait_for_step(away + 3)
            # So few steps would be over before a server is up.
            run.process.send_signal(signal.SIGSTOP)
            with served(tmp_path, port):
                run.process.send_signal(signal.SIGCONT)
                status, error = run.end()
                assert status == 0 and "MLflow" not in error, error
                assert steps_in(uri, folder) == list(range(1, STEPS + 1))
    assert [entry["step"] for entry in logged(folder)] == list(range(1, STEPS + 1))
    assert "MLflow at" not in (folder / "train.log").read_text().splitlines()[-1], "nothing is missing"
    done = f"server killed after step {killed}, up again after step {away + 3}"
    record("MLflow away and back", done, "nothing: sent afterwards", None)


@contextmanager
def served(folder: Path, port: str) -> Iterator[None]:
    """MLflow's server with SQLite, killed when the block ends."""
    words = ["server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--host", "127.0.0.1"]
    words += ["--port", port, "--workers", "1", "--default-artifact-root", str(folder / "artifacts")]
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words], stdout=output, stderr=output, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 300
        while not _answers(port):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.3)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def steps_in(uri: str, folder: Path) -> list[int]:
    """Those of which MLflow has the loss."""
    from mlflow.tracking import MlflowClient

    note = folder / "mlflow.json"
    run = json.loads(note.read_text()).get("run_id") if note.exists() else None
    history = MlflowClient(uri).get_metric_history(run, "train/loss") if run else []
    return sorted(metric.step for metric in history)
