"""A hang is reported and ended: every rank's stack goes to its log, with the rank for which the others wait.

A collective that one rank does not join keeps all others waiting, for half an hour by default and without a
word. Here a thread of each rank looks whether steps are still made. It speaks to the other ranks through
files of the attempt's folder, since what hangs is the way by which they usually speak.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from spml_dist import comm
from spml_dist.run_folder import hang, rank_log

GRACE = 5.0
"""seconds that the ranks give one another to write down where they are"""
STATUS = 70
"""exit status of a process that ends for this"""
_COLLECTIVES = (f"torch{os.sep}distributed{os.sep}", f"deepspeed{os.sep}comm{os.sep}")
"""files in which a thread waits for other ranks"""


@contextmanager
def watched(
    logs: Path, patience: float, say: Callable[[str], None], end: Callable[[int], object] = os._exit
) -> Iterator[Callable[[int], None]]:
    """While the block runs, expect a call of what is yielded, with the steps done, every `patience` seconds.

    logs: the attempt's folder. Where none comes: writes this rank's stacks to its log there, tells `say`
    which ranks are in no collective while others wait for them, and calls end(STATUS). A process alone waits
    for nobody, and is not watched.
    """
    if comm.world() == 1:
        yield lambda done: None
        return
    watch = _Watch(logs, patience, say, end)
    watch.start()
    try:
        yield watch.alive
    finally:
        watch.over.set()


class _Watch(threading.Thread):
    def __init__(self, logs: Path, patience: float, say: Callable[[str], None], end: Callable[[int], object]):
        super().__init__(name="hang watch", daemon=True)
        self._logs, self._patience, self._say, self._end = logs, patience, say, end
        self._rank, self._world = comm.rank(), comm.world()
        self._done, self._since = 0, time.monotonic()
        self._watched = threading.get_ident()
        self.over = threading.Event()

    def alive(self, done: int) -> None:
        self._done, self._since = done, time.monotonic()

    def run(self) -> None:
        while not self.over.wait(min(1.0, self._patience / 10)):
            if time.monotonic() - self._since > self._patience:
                break
        if self.over.is_set():
            return
        with suppress(OSError):
            self._write_down()
            time.sleep(GRACE)
            if not self._say_who_is_missing():
                time.sleep(GRACE)  # a process that ends first would take away the one that speaks
        self._end(STATUS)

    def _write_down(self) -> None:
        log = rank_log(self._logs, self._rank)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"no step for {self._patience:g} s after step {self._done}; all threads:\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        waits = _in_collective(sys._current_frames().get(self._watched))
        hang(self._logs, self._rank).write_text(json.dumps({"step": self._done, "waits": waits}) + "\n")

    def _say_who_is_missing(self) -> bool:
        """The lowest rank that waits speaks for all. Whether this is the one."""
        notes = {rank: _noted(hang(self._logs, rank)) for rank in range(self._world)}
        waiting = [rank for rank, note in notes.items() if note and note["waits"]]
        late = [rank for rank in notes if rank not in waiting]
        if self._rank != min(waiting, default=0):
            return False
        who = f"rank {', '.join(map(str, late))} did not come" if late else "all ranks wait"
        self._say(
            f"no step for {self._patience:g} s after step {self._done}: {who}; stacks are in {self._logs}"
        )
        return True


def _noted(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _in_collective(frame: FrameType | None) -> bool:
    """Whether a thread is inside a function of torch or DeepSpeed that talks to other ranks."""
    while frame is not None:
        if any(part in frame.f_code.co_filename for part in _COLLECTIVES):
            return True
        frame = frame.f_back
    return False
