"""Workers whose number follows the cluster. It knows no Ray: room is a function that counts.

Ray Train resizes by itself too (`ScalingConfig(num_workers=(min, max))`), but in the middle of a step, back
to the last checkpoint and without a word to the workers. Here they save the step that they are making first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

Room = Callable[[], int]
"""how many workers there is room for now"""

SETTLE_SECONDS = 30
"""how long nodes may take to join, or to come back, before a training starts on fewer workers than it may"""
LOOK_SECONDS = 10
"""between two looks for more room"""


def settled(room: Room, most: int, stopped: Callable[[], bool], pause: float = 1) -> int:
    """How many workers there is room for, as soon as that is `most`, or SETTLE_SECONDS later.

    stopped: whether somebody asks to wait no longer.
    """
    deadline = time.monotonic() + SETTLE_SECONDS
    while (count := room()) < most and time.monotonic() < deadline and not stopped():
        time.sleep(pause)
    return min(count, most)


class Growth:
    """A look-out for more room while workers are at work. As a context, it gives back what it holds.

    wanted: opens a request for room for the workers that are missing, and yields how many have it; reached:
    the furthest step there is; ask: asks the workers to save and end, so that more may start.
    """

    def __init__(
        self, wanted: Callable[[], AbstractContextManager[Room]], reached: Room, ask: Callable[[], None]
    ):
        self._wanted, self._reached, self._ask = wanted, reached, ask
        self._start = reached()
        self._room: Room | None = None
        self._held = ExitStack()
        self.asked = False

    def look(self) -> None:
        """Look once. The request is opened when the workers have made a step: before, it would take the room
        that was meant for them."""
        if self.asked:
            return
        if self._room is None:
            if self._reached() > self._start:
                self._room = self._held.enter_context(self._wanted())
        elif self._room():
            self.asked = True
            self._ask()

    def __enter__(self) -> Growth:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()
