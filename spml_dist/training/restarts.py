"""What a run keeps of its failures: RUN/restarts.jsonl, and a line of the log for each."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from spml_dist.run_folder import RunFolder
from spml_dist.tracking.metrics_log import last_step

if TYPE_CHECKING:
    from spml_dist.cluster.restarts import Failure


def reached(run: RunFolder) -> int:
    """The last logged step, 0 before there is one."""
    return last_step(run.metrics)


def note(run: RunFolder, failure: Failure) -> None:
    """Add a failure; a disk that refuses does not keep the workers from starting again."""
    entry = {
        "timestamp": int(1000 * time.time()),
        "step": failure.step,
        "reason": failure.reason,
        "traceback": failure.traceback,
    }
    with suppress(OSError):
        run.path.mkdir(parents=True, exist_ok=True)
        with run.restarts.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        with run.train_log.open("a", encoding="utf-8") as file:
            file.write(f"failure {failure.number}, after step {failure.step}: {failure.reason}\n")
