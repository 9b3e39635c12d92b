"""Stopping a training that will go on later: a file RUN/stop asks for it, whoever launched the workers.

The process that the user started makes the file on SIGTERM or Ctrl-C. Every rank looks for it at every
step; the ranks agree, save, and leave with exit status 75. A second signal ends everything at once; one
that comes again within seconds is the same one, which launchers send to a process and to its group.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil

from spml_dist.run_folder import RunFolder

SAME_SECONDS = 5.0
"""within which a signal that comes again is the same one, but a second Ctrl-C"""


@contextmanager
def on_signals(folder: Path) -> Iterator[None]:
    """While the block runs, a first SIGTERM or SIGINT asks for a stop, and a second one kills this process
    and all that it started. Python hears of signals in the main thread alone: in another one, only the file
    asks."""
    request = RunFolder(folder).stop
    request.unlink(missing_ok=True)
    ask_growth(folder, False)  # of a launch that was killed
    first: dict[int, float] = {}
    forwarded = "TORCHELASTIC_RUN_ID" in os.environ  # torchrun passes on what a terminal sends to all

    def answer(number: int, frame: FrameType | None) -> None:
        second = bool(first)
        again = time.monotonic() - first.setdefault(number, time.monotonic()) < SAME_SECONDS
        again &= number == signal.SIGTERM or forwarded
        if second:
            if again and len(first) == 1:
                return
            for child in psutil.Process().children(recursive=True):
                child.kill()
            os._exit(128 + number)
        request.touch()
        with suppress(OSError):  # nobody reads it any more: what it says happens all the same
            os.write(2, b"saving and stopping after this step; once more to stop at once\n")

    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = {number: signal.signal(number, answer) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with suppress(OSError):  # of storage that refuses: what ended the block is the error to tell
            request.unlink(missing_ok=True)


def on_later_signals(folder: Path) -> None:
    """Beside rank 0, for the rest of this process: a first SIGTERM or SIGINT asks for a stop, and none ends
    it, which is for rank 0 or the launcher to do."""
    request, asked = RunFolder(folder).stop, threading.Event()

    def answer(number: int, frame: FrameType | None) -> None:
        if not asked.is_set():  # later ones may come when rank 0 has answered and gone
            asked.set()
            with suppress(OSError):
                request.touch()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, answer)


def requested(folder: Path) -> bool:
    """Whether the run in this folder is asked to stop."""
    return RunFolder(folder).stop.exists()


def ask_growth(folder: Path, asked: bool) -> None:
    """Ask the workers of a run to save and end, so that more of them may start, or take that back."""
    request = RunFolder(folder).grow
    request.touch() if asked else request.unlink(missing_ok=True)


def save_requested(folder: Path) -> bool:
    """Whether the workers are to save and end, for whichever reason."""
    return requested(folder) or RunFolder(folder).grow.exists()
