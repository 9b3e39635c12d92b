"""Whether a cluster has room for a training's workers. It knows no Ray: resources are plain data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping

from spml_dist.errors import RunError, Stopped

RESOURCE = {"cuda": "GPU", "cpu": "CPU"}
"""what a worker reserves of its cluster, by the device that it computes on"""

Resources = Callable[[], Mapping[str, float]]
"""how many of each resource all nodes of a cluster have now, all of them or the free ones, by Ray's names"""


def device_for(choice: str, workers: int, resources: Resources) -> str:
    """Where all workers compute, "cuda" or "cpu". auto takes GPUs if the cluster has one for every worker."""
    if choice != "auto":
        return choice
    return "cuda" if resources().get("GPU", 0) >= workers else "cpu"


def lacking(workers: int, device: str, resources: Resources) -> int:
    """How many GPUs ("cuda") or cores ("cpu") the cluster has too few: every worker wants one."""
    return max(0, workers - int(resources().get(RESOURCE[device], 0)))


def wait(
    workers: int,
    device: str,
    resources: Resources,
    *,
    where: str,
    patience: float,
    say: Callable[[str], None],
    stopped: Callable[[], bool],
    pause: float = 2,
) -> None:
    """Return once there is room for all workers.

    where: what has the resources, for a person; patience: seconds that it may take to grow, or inf to wait
    for others to finish; say: is told what is waited for, whenever that changes; stopped: whether somebody
    asks to wait no longer; pause: seconds between two looks. RunError: it took longer; Stopped: somebody
    asked.
    """
    deadline = time.monotonic() + patience
    last = None
    while missing := lacking(workers, device, resources):
        left = deadline - time.monotonic()
        counts = f"{workers} workers, {counted(workers - missing, RESOURCE[device])}"
        if left <= 0:
            raise RunError(
                f"engine.workers: engine.device gives each a {RESOURCE[device]}, and {where} has too few",
                counts,
                " or ".join(_remedies(device, may_grow=patience > 0)),
            )
        if counts != last:
            least = f"up to {left:.0f} s " if left < math.inf else ""
            say(f"waiting {least}for {where} to have room: {counts}")
            last = counts
        time.sleep(min(pause, left))
        if stopped():
            raise Stopped(f"stopped while {where} had no room", counts, "the same command waits again")


def _remedies(device: str, may_grow: bool) -> Iterator[str]:
    yield "lower engine.workers"
    if device == "cuda":
        yield "set engine.device=cpu"
    if may_grow:
        yield "add nodes"


def counted(number: float, resource: str) -> str:
    """Such as "1 GPU" and "2 GPUs"."""
    return f"{number:.0f} {resource}{'s' * (number != 1)}"
