"""A training is sent to MLflow while it runs, which never slows or stops it: `sync` in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from spml_dist.tracking.mlflow_sync import Missing, missing, remember, shown, sync

PAUSE = 2.0
"""seconds between two looks at the folder; after trouble twice as many each time"""
LONGEST_PAUSE = 60.0


class BackgroundSync:
    """One MLflow run for one training, also across its restarts. For rank 0 only.

    The caller never waits for its thread, and sees none of its troubles: `say` gets a line when MLflow goes
    away, and one when it is back. The other arguments are those of `sync`.
    """

    def __init__(
        self,
        folder: Path,
        uri: str,
        experiment: str,
        name: str,
        params: Mapping[str, Any],
        say: Callable[[str], None] = lambda text: None,
    ):
        self._folder, self._uri, self._say = folder, uri, say
        self._sync = lambda: sync(folder, uri, experiment, name, params).error
        self._error: str | None = None
        self._ending = threading.Event()
        self._set_status("RUNNING")
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def finish(self, status: str = "FINISHED", seconds: float = 30.0) -> Missing:
        """Send what is left, within so many seconds, and end the run as FINISHED, FAILED or KILLED."""
        self._set_status(status)
        self._ending.set()
        self._thread.join(seconds)
        error = f"no answer in {seconds:g} s" if self._thread.is_alive() else self._error
        return missing(self._folder, self._uri, error)

    def _set_status(self, status: str) -> None:
        """For `sync`, of this training or a later one; a disk that refuses stops no training."""
        with suppress(OSError):
            remember(self._folder, status=status)

    def _work(self) -> None:
        pause = PAUSE
        while True:
            if missing(self._folder, self._uri, self._error):  # else the server is left in peace
                before, self._error = self._error, self._sync()
                self._report(before)
                pause = min(2 * pause, LONGEST_PAUSE) if self._error else PAUSE
            if self._ending.wait(pause):
                break
        self._error = self._sync()
        if self._error and pause == PAUSE:  # a server that was there until now gets a second chance
            time.sleep(PAUSE)
            self._error = self._sync()

    def _report(self, before: str | None) -> None:
        name = f"MLflow at {shown(self._uri)}"
        if self._ending.is_set():  # `finish` tells what is missing
            return
        if self._error and not before:
            self._say(f"{name}: {self._error}; training goes on, and what it misses is sent when it can be")
        if before and not self._error:
            self._say(f"{name} has everything again")
