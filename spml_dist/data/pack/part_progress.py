"""A bar over the images of a pack, also while other processes read them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from spml_dist.data.pack.parts import COUNTER
from spml_dist.progress import progress_bar

_LOOK_SECONDS = 0.5


@contextmanager
def part_progress(
    name: str, sizes: Mapping[str, int], finished: Container[str], counters: Path
) -> Iterator[Callable[[str], None]]:
    """Show a bar while the block runs, which calls what it is given with each part that is finished.

    sizes: images of each part. finished: those that are from the start. counters: folder where a part that is
    running has a file PART.seen of one byte an image.
    """
    done = [size for part, size in sizes.items() if part in finished]
    # This thread counts finished parts, another one reads running ones from their files. The lock
    # keeps a part from being counted twice, as finished and by its file.
    lock, over = threading.Lock(), threading.Event()
    with progress_bar(range(sum(sizes.values())), name, initial=sum(done)) as bar:

        def look() -> None:
            with lock:
                running = sum(path.stat().st_size for path in counters.glob(f"*{COUNTER}"))
                bar.update(max(0, sum(done) + running - bar.n))

        def watch() -> None:
            while not over.wait(_LOOK_SECONDS):
                look()

        def finish(part: str) -> None:
            with lock:
                done.append(sizes[part])
                (counters / f"{part}{COUNTER}").unlink(missing_ok=True)

        watcher = threading.Thread(target=watch, name="progress", daemon=True)
        watcher.start()
        try:
            yield finish
            look()
        finally:
            over.set()
            watcher.join()
