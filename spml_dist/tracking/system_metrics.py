"""How busy every node is: RUN/system/node_N.jsonl, a line every few seconds, by one process of each node.

Nothing here takes part in a step: a thread reads the machine's own counters and appends to a file, which the
report shows and MLflow is sent. MLflow's own monitor would need a run before its first reading, stops for
good when its server is away once, and would have every node import MLflow; its names are kept.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path

import psutil
import torch

from spml_dist.run_folder import RunFolder

INTERVAL = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
"""the environment variable that MLflow itself reads, in seconds"""


def node() -> int:
    """Number of this machine among those of the run, as Ray or torchrun gave it; 0 without either."""
    return int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", 0)))


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """While the block runs, append readings to FOLDER/system/node_N.jsonl; only a node's first process does.

    The last reading is made when the block ends, so that the shortest run has one. A disk that refuses
    costs readings, never the run.
    """
    if int(os.environ.get("LOCAL_RANK", 0)) != 0:
        yield
        return
    over = threading.Event()
    path = RunFolder(folder).system(node())
    thread = threading.Thread(target=_watch, args=(path, over), name="system", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5.0)


def readings(received: int = 0, sent: int = 0) -> dict[str, float]:
    """The machine's counters now, by MLflow's own names; network traffic above so many bytes.

    CPU utilisation is that since the last call. GPUs are those that this process sees, where the vendor's
    library is installed.
    """
    memory, disk, network = psutil.virtual_memory(), psutil.disk_usage(os.sep), psutil.net_io_counters()
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": 100 * memory.used / memory.total,
        "disk_usage_percentage": disk.percent,
        "disk_available_megabytes": disk.free / 1e6,
        "network_receive_megabytes": (network.bytes_recv - received) / 1e6,
        "network_transmit_megabytes": (network.bytes_sent - sent) / 1e6,
        **_gpus(),
    }


def _watch(path: Path, over: threading.Event) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        step, torn = _lines(path)
        start, interval = psutil.net_io_counters(), float(os.environ.get(INTERVAL, 10.0))
        psutil.cpu_percent()
        with path.open("a", encoding="utf-8", buffering=1) as file:
            file.write("\n" * torn)
            last = False
            while not last:
                last = over.wait(interval)
                step += 1
                now = readings(start.bytes_recv, start.bytes_sent)
                rounded = {name: round(value, 1) for name, value in now.items()}
                when = {"step": step, "timestamp": int(1000 * time.time()), "host": socket.gethostname()}
                file.write(json.dumps(when | rounded) + "\n")
    except OSError:
        return


def _lines(path: Path) -> tuple[int, bool]:
    """How many lines an earlier attempt has left, and whether a crash has torn the last one."""
    content = path.read_bytes() if path.exists() else b""
    return len(content.splitlines()), bool(content) and not content.endswith(b"\n")


def _gpus() -> dict[str, float]:
    counters = {
        "utilization_percentage": lambda number: float(torch.cuda.utilization(number)),
        "memory_usage_megabytes": lambda number: torch.cuda.device_memory_used(number) / 1e6,
        "power_usage_watts": lambda number: torch.cuda.power_draw(number) / 1e3,
    }
    values = {}
    for number, (name, read) in product(range(torch.cuda.device_count()), counters.items()):
        # No vendor library, a card that does not answer, a counter that it has not: errors of many kinds.
        with suppress(Exception):
            values[f"gpu_{number}_{name}"] = read(number)
    return values
