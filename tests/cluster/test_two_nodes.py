"""A Ray cluster of two nodes on this machine: a training goes on with one of them, and grows back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Head, kill_node, start_ray

pytestmark = [pytest.mark.drill, pytest.mark.timeout(3000)]
STEPS = 400


@pytest.fixture
def join(
    head: Head, clean_environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[[], subprocess.Popen]]:
    """Add a node of one core; it returns when the node has joined."""
    nodes = []

    def start() -> subprocess.Popen:
        words = (
            "--address",
            head.gcs,
            "--num-cpus",
            "1",
            "--num-gpus",
            "0",
            "--node-ip-address",
            "127.0.0.1",
        )
        nodes.append(start_ray(words, clean_environment | head.credentials, tmp_path / "node.log"))
        return nodes[-1]

    yield start
    for node in nodes:
        kill_node(node)


def logged(folder: Path) -> list[dict]:
    path = folder / "metrics.jsonl"
    return list(map(json.loads, path.read_text().splitlines())) if path.exists() else []


def until(condition: Callable[[], bool], training: subprocess.Popen, seconds: float = 900) -> float:
    """Seconds until it holds."""
    start = time.monotonic()
    while not condition():
        assert training.poll() is None, "the training has ended"
        assert time.monotonic() - start < seconds, "too long"
        time.sleep(0.1)
    return time.monotonic() - start


def test_it_goes_on_with_one_node_and_grows_back(head, join, clean_environment, experiment, tmp_path: Path):
    changes = (f"schedule.steps={STEPS}", "checkpoint.every=5", "tracking.previews=0")
    words = experiment(tmp_path, "elastic", *changes, "engine.workers=[2, 3]")
    folder = tmp_path / "elastic"
    node = join()
    environment = clean_environment | head.credentials | {"RAY_ADDRESS": head.gcs}
    command = [sys.executable, "-m", "spml_dist", "train", *words]
    with (tmp_path / "out").open("w") as out:
        training = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        until(lambda: len(logged(folder)) >= 7 and logged(folder)[-1]["workers"] == 3, training)
        kill_node(node)
        lost = until(lambda: logged(folder)[-1]["workers"] == 2, training)
        join()
        back = until(lambda: logged(folder)[-1]["workers"] == 3, training)
        print(f"a step by two workers after {lost:.0f} s, by three {back:.0f} s after a node was added")
        training.terminate()
        assert training.wait(timeout=600) == 75, (tmp_path / "out").read_text()
    finally:
        training.kill()
    entries = logged(folder)
    assert [entry["step"] for entry in entries] == [*range(1, len(entries) + 1)]
    (failure,) = map(json.loads, (folder / "restarts.jsonl").read_text().splitlines())
    assert failure["step"] >= 7


def test_doctor_looks_at_both_nodes(head: Head, join, clean_environment: dict[str, str]):
    join()
    command = [sys.executable, "-m", "spml_dist", "doctor", "--address", head.gcs]
    for _ in range(9):  # the node may still be on its way
        done = subprocess.run(
            command,
            env=clean_environment | head.credentials,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        if "round trip" in done.stdout:
            break
        time.sleep(5)
    lines = done.stdout.splitlines()
    (nodes,) = [line for line in lines if line.startswith("ok   nodes: ")]
    assert nodes.count("#") == 2, done
    assert any(line.startswith("ok   round trip: ") for line in lines), done
    assert any(line.startswith("ok   clocks: 0.") for line in lines), done
    assert any(line.startswith("ok   torch: ") for line in lines), "one version on both"
