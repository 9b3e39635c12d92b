"""How a loader process behaves: its memory, the signals that reach it, its end."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
from contextlib import suppress

from spml_dist.cluster import sockets

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""settings of glibc's mallopt"""


def prepare(process: int) -> None:
    """What a loader process does first; `process` is its number, which torch passes."""
    keep_memory()
    sockets.of_this_process()
    # Both reach the whole process group, and the training still needs batches to come to a step that it can
    # save. It ends this process itself; where it is killed, torch sees that it is gone.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # No farewell of the interpreter: the thread that hands over batches may just be inside torch, where
    # being ended aborts the process.
    atexit.register(os._exit, 0)


def keep_memory() -> None:
    """Let glibc keep an image's memory for the next one; other libraries have no such setting.

    Otherwise every image's megabytes are handed back and faulted in again, a third of the time.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for setting, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**26)):
            mallopt(setting, value)
