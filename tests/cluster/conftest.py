"""A Ray head of the tests' own, with token authentication, on free ports."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

START_SECONDS = 300


@dataclass(frozen=True)
class Head:
    address: str
    """of the dashboard"""
    gcs: str
    """where nodes and drivers join"""
    token_file: Path
    tracking_token: str
    """a key that its jobs inherit, as MLFLOW_TRACKING_TOKEN"""

    @property
    def credentials(self) -> dict[str, str]:
        """Environment of who joins."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_file)}


@pytest.fixture(scope="session")
def clean_environment(tmp_path_factory) -> dict[str, str]:
    """The environment without a trace of another Ray cluster or token, and with a home that holds none."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    home = {"HOME": str(tmp_path_factory.mktemp("home")), "RAY_USAGE_STATS_ENABLED": "0"}
    # A machine that is busy with something else takes longer than Ray by itself has patience for.
    patience = ("RAY_raylet_start_wait_time_s", "RAY_DASHBOARD_STARTUP_TIMEOUT_S")
    return kept | home | dict.fromkeys(patience, str(START_SECONDS))


@pytest.fixture(scope="module")
def head(clean_environment: dict[str, str]) -> Iterator[Head]:
    # Ray's sockets live here, and the path of a socket holds 107 bytes: pytest's folders are too long.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield from _head(Path(folder), clean_environment)


def _head(folder: Path, clean_environment: dict[str, str]) -> Iterator[Head]:
    token_file = folder / "token"
    token_file.write_text(secrets.token_hex(32))
    token_file.chmod(0o600)
    gcs, dashboard, client = free_ports(3)
    words = [
        *("--head", "--port", gcs, "--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard),
        *("--ray-client-server-port", client, "--num-cpus", "2", "--num-gpus", "0"),
        *("--node-ip-address", "127.0.0.1", "--temp-dir", str(folder)),
    ]
    tracking_token = secrets.token_hex(16)
    keys = {"RAY_AUTH_TOKEN_PATH": str(token_file), "MLFLOW_TRACKING_TOKEN": tracking_token}
    environment = clean_environment | {"RAY_AUTH_MODE": "token"} | keys
    process = start_ray(words, environment, folder / "head.log", folder)
    try:
        address = f"http://127.0.0.1:{dashboard}"
        _wait(process, address)
        yield Head(address, f"127.0.0.1:{gcs}", token_file, tracking_token)
    finally:
        _end(process)


def start_ray(
    words: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path | None = None
) -> subprocess.Popen:
    """`ray start --block WORDS`, in a process group of its own; returns once that node has joined."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *ports_of_a_node(), *words],
            env=environment,
            cwd=cwd,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while "will now block forever" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            kill_node(process)
            pytest.fail(f"Ray did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.3)
    return process


def kill_node(process: subprocess.Popen) -> None:
    """All that `ray start` has started at once, as when the machine loses power."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ports_of_a_node() -> list[str]:
    """Options of `ray start` for a node beside others of this machine."""
    agent, grpc, metrics = free_ports(3)
    own = ("--dashboard-agent-listen-port", agent, "--dashboard-agent-grpc-port", grpc)
    return [*own, "--metrics-export-port", metrics, "--min-worker-port", "0", "--max-worker-port", "0"]


def free_ports(count: int) -> list[str]:
    """Ports of the loopback that nobody listens at now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait(process: subprocess.Popen, address: str) -> None:
    """Until the dashboard asks for a token."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=5)
        except urllib.error.HTTPError as error:
            if error.code == 401:
                return
        except OSError:
            pass
        time.sleep(0.5)
    pytest.fail("Ray's dashboard did not start")


def _end(process: subprocess.Popen) -> None:
    """End this head with its process group and nothing else (`ray stop` would end every cluster)."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)
    kill_node(process)
