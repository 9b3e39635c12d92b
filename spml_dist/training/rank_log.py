"""What each rank says in one start of the workers: RUN/logs/attempt_NNNN/rank_NNNNN.log.

RUN/logs/latest leads to the newest attempt. RUN/train.log is what rank 0 has to tell people; here is where
each rank ran, what libraries have printed there, and what ended it.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from spml_dist import comm
from spml_dist.errors import SpmlError
from spml_dist.files.write import replacing
from spml_dist.run_folder import RunFolder, rank_log


@contextmanager
def kept(run: RunFolder, output: bool) -> Iterator[Path]:
    """Keep this rank's log while the block runs, and yield the folder of this attempt's logs; a collective.

    output: whether all that this process prints goes there, of C++ libraries too, because nobody else sees
    it. Storage that refuses keeps no training from starting: what cannot be written there is not written.
    """
    folder = run.attempt(comm.from_rank_zero(_new_attempt(run) if comm.rank() == 0 else 0))
    with ExitStack() as stack:
        log = None
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            log = stack.enter_context(rank_log(folder, comm.rank()).open("a", encoding="utf-8", buffering=1))
        if log and output:
            stack.enter_context(_printed_into(log))
        where = f"rank {comm.rank()} of {comm.world()} on {platform.node()}, process {os.getpid()}"
        _write(log, f"{where} begins")
        try:
            yield folder
        except SpmlError as error:
            _write(log, f"{where} ends: {error}")
            raise
        except BaseException:
            _write(log, f"{where} ends:\n{traceback.format_exc()}")
            raise
        _write(log, f"{where} ends")


def _new_attempt(run: RunFolder) -> int:
    """The next attempt's number; `latest` leads to its folder, which need not be there yet."""
    number = 1 + max((int(path.name.rpartition("_")[2]) for path in run.attempts()), default=0)
    with suppress(OSError):  # also of storage that knows no links
        run.latest_attempt.parent.mkdir(parents=True, exist_ok=True)
        with replacing(run.latest_attempt) as aside:
            aside.symlink_to(run.attempt(number).name)
    return number


@contextmanager
def _printed_into(log: TextIO) -> Iterator[None]:
    """What this process prints goes into the log while the block runs."""
    kept = {stream: os.dup(stream) for stream in (1, 2)}
    sys.stdout.flush()
    try:
        for stream in kept:
            os.dup2(log.fileno(), stream)
        yield
    finally:
        for stream, before in kept.items():
            (sys.stdout, sys.stderr)[stream - 1].flush()
            os.dup2(before, stream)
            os.close(before)


def _write(log: TextIO | None, text: str) -> None:
    with suppress(OSError):
        if log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
