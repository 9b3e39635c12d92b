"""Two Ray nodes on this machine, each of which can be killed: all that it has started dies with it."""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.conftest import START_SECONDS, free_ports, kill_node, start_ray

ROOT = Path(__file__).parents[2]
NODE = ("--node-ip-address", "127.0.0.1", "--num-cpus", "1", "--num-gpus", "0")


class Cluster:
    """A head and a node of one core each, for one worker each."""

    def __init__(self, folder: Path):
        (folder / "token").write_text(secrets.token_hex(32))
        (folder / "token").chmod(0o600)
        self._folder, self._processes = folder, dict[str, subprocess.Popen]()
        self._port, self._dashboard, self._client = free_ports(3)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self._joining = kept | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": str(START_SECONDS),
            # Workers look here for the functions that they are handed.
            "PYTHONPATH": str(ROOT),
        }
        self.environment = self._joining | {"RAY_ADDRESS": f"127.0.0.1:{self._port}"}
        """of whoever trains on it"""

    def start_head(self) -> None:
        ports = ("--port", self._port, "--dashboard-host", "127.0.0.1", "--dashboard-port", self._dashboard)
        # Ray's sockets live there, and the path of a socket holds 107 bytes.
        place = tempfile.mkdtemp(prefix="h", dir=self._folder)
        self._start("head", "--head", *ports, "--ray-client-server-port", self._client, "--temp-dir", place)

    def start_node(self) -> None:
        self._start("node", "--address", self.environment["RAY_ADDRESS"])

    def kill(self, name: str) -> None:
        """Everything of a node at once, "head" or "node": as when its machine loses power."""
        kill_node(self._processes.pop(name))

    def end(self) -> None:
        for name in list(self._processes):
            self.kill(name)

    def _start(self, name: str, *words: str) -> None:
        log = self._folder / f"{name}.log"
        self._processes[name] = start_ray([*NODE, *words], self._joining, log, ROOT)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A head and a node, and none of their processes afterwards."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        one = Cluster(Path(folder))
        try:
            one.start_head()
            one.start_node()
            yield one
        finally:
            one.end()
