"""The one progress bar: live in a terminal, in a log a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

_REFRESH_SECONDS = 0.2
_LINE_SECONDS = 30
"""between two lines of a log"""

Item = TypeVar("Item")


def progress_bar(
    items: Iterable[Item],
    name: str,
    total: int | None = None,
    *,
    unit: str = "images",
    initial: int = 0,
    delay: float = 0,
    shown: bool = True,
) -> tqdm[Item]:
    """The items, with a bar on standard error while they are taken.

    Whatever else counts them updates it by hand: `with progress_bar(range(8), "packing") as bar`.
    total: how many there are, needed where `items` has no length; unit: what they are, in the plural;
    initial: how many were done before; delay: seconds that pass without a bar.
    """
    live = sys.stderr.isatty()
    seconds = _REFRESH_SECONDS if live else _LINE_SECONDS
    return tqdm(
        items,
        name,
        total,
        unit=f" {unit}",
        initial=initial,
        delay=delay,
        disable=not shown,
        mininterval=seconds,
        maxinterval=max(10, seconds),
        file=None if live else _Lines(),
    )


class _Lines:
    """Standard error where it is a log: every state of the bar on a line of its own."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()
