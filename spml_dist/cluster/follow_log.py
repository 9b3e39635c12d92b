"""Showing what others write to a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def following(log: Path, show: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, pass every new line of a growing file to `show`."""
    start = log.stat().st_size if log.exists() else 0
    over = threading.Event()
    follower = threading.Thread(target=_follow, args=(log, start, show, over), daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()


def _follow(log: Path, position: int, show: Callable[[str], None], over: threading.Event) -> None:
    partial = b""
    last_round = False
    while True:
        if log.exists():
            with log.open("rb") as file:
                file.seek(position)
                partial += file.read()
                position = file.tell()
        # Whole lines alone are text: what has been written so far may end within a letter.
        *lines, partial = partial.split(b"\n")
        for line in lines:
            show(line.decode("utf-8", errors="replace"))
        if last_round:
            return
        last_round = over.is_set()
        if not last_round:
            time.sleep(0.3)
