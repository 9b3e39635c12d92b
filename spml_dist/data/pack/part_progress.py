"""A bar over the images of a pack, also while other processes read them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from spml_dist.data.pack.parts import SEEN

_LOOK_SECONDS = 0.5
_LINE_SECONDS = 30
"""between two lines of a log file"""


@contextmanager
def progress(
    name: str, sizes: Mapping[str, int], finished: Container[str], seen: Path
) -> Iterator[Callable[[str], None]]:
    """Show a bar while the block runs, which calls what it is given with each part that is finished.

    sizes: images of each part. finished: those that are from the start. seen: folder where a part that is
    running has a file PART.seen of one byte an image.
    """
    done = [size for part, size in sizes.items() if part in finished]
    lock, over = threading.Lock(), threading.Event()
    with tqdm(desc=name, total=sum(sizes.values()), initial=sum(done), unit=" images", **_manner()) as bar:

        def look() -> None:
            with lock:
                running = sum(path.stat().st_size for path in seen.glob(f"*{SEEN}"))
                bar.update(max(0, sum(done) + running - bar.n))

        def watch() -> None:
            while not over.wait(_LOOK_SECONDS):
                look()

        def finish(part: str) -> None:
            with lock:
                done.append(sizes[part])
                (seen / f"{part}{SEEN}").unlink(missing_ok=True)

        watcher = threading.Thread(target=watch, name="progress", daemon=True)
        watcher.start()
        try:
            yield finish
            look()
        finally:
            over.set()
            watcher.join()


def _manner() -> dict[str, Any]:
    if sys.stderr.isatty():
        return {"mininterval": 0.2}
    return {"mininterval": _LINE_SECONDS, "maxinterval": _LINE_SECONDS, "file": _Lines()}


class _Lines:
    """Standard error where it is a log: every state of the bar on a line of its own."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()
