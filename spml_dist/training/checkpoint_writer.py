"""Checkpoints are written by a thread, from a copy: a step waits for the copy and never for the disk.

Every rank writes its part into a folder beside the final place and then leaves a note there. Rank 0 makes a
checkpoint of the folder, by renaming it, once all notes are in it: the threads talk through files, since the
process group is the steps' own. What a thread could not write becomes known at the next step, whose
all-reduce says so, or where the ranks wait for the checkpoint anyway.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from spml_dist import comm
from spml_dist.config import Config, dump
from spml_dist.errors import RunError
from spml_dist.files.write import flush, replacing
from spml_dist.records import BankCopy, SegmentBank
from spml_dist.run_folder import LATEST
from spml_dist.training.checkpoint import BANK, ENCODER, prune
from spml_dist.training.checkpoint_copies import CheckpointCopies
from spml_dist.training.engine import Engine
from spml_dist.training.momentum_encoder import MomentumEncoder

GRACE = 15.0
"""seconds that ranks wait, once something has ended the training, for others that may not live any more"""
NOTES, NOTE = "notes", "rank_{:05d}.json"
"""where a rank says that its part is written, and what the bank has to know of it"""
_SOONEST, _LATEST = 0.01, 1.0
"""seconds between two looks for the notes"""


class CheckpointWriter:
    """One rank's; at most one checkpoint is on its way."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        last: Path | None = None,
        copies: CheckpointCopies | None = None,
    ):
        """folder: of the run's checkpoints; last: the newest whole one, which is not older than the bank;
        copies: of rank 0, which whole ones are offered to."""
        self._folder, self._config, self._last, self._copies = folder, config, last, copies
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._write: _Write | None = None
        self._tasks: list[Future[None]] = []
        """this rank's part; on rank 0, the whole"""

    def begin(
        self, engine: Engine, bank: SegmentBank, stream_state: dict, encoder: MomentumEncoder | None = None
    ) -> Path:
        """Copy everything, and begin to write step_NNNNNN, which is there whole or not at all; its path.

        A collective; waits for the checkpoint before, and raises as `finish`.
        """
        self.finish()
        final = self._folder / f"step_{stream_state['step']:06d}"
        state = engine.state() | ({ENCODER: encoder.state()} if encoder else {})
        write = _Write(
            final,
            final.with_name(f"{final.name}.tmp"),
            {part: _in_host_memory(tensors) for part, tensors in state.items()} if comm.rank() == 0 else {},
            bank.copied(self._last / BANK if self._last else None),
            {
                "stream.json": json.dumps(stream_state) + "\n",
                "config.yaml": dump(self._config),
            },
            self._config.checkpoint.keep,
            threading.Event(),
            self._copies,
        )
        comm.agree(_trouble(write.begin))
        self._write, self._tasks = write, [self._thread.submit(write.part)]
        if comm.rank() == 0:
            self._tasks.append(self._thread.submit(write.whole, self._tasks[0]))
        return final

    def failed(self) -> bool:
        """Whether this rank knows that the checkpoint on its way cannot be written: time to `finish`."""
        return any(task.done() and task.exception() for task in self._tasks)

    def finish(self) -> None:
        """Wait until what is on its way is whole; a collective. Raises RunError on every rank if one of them
        cannot write."""
        if self._write is None:
            return
        write, tasks, self._write, self._tasks = self._write, self._tasks, None, []
        try:
            comm.agree(_trouble(tasks[0].result))
        except RunError:
            write.given_up.set()  # a note will never come
            raise
        comm.agree(_trouble(tasks[-1].result))
        self._last = write.final

    def close(self) -> None:
        """Let what is on its way become whole although something has ended the training: no collective, for
        other ranks may have died. It stays a part if they have not written theirs within seconds."""
        wait(self._tasks[:1])
        wait(self._tasks, timeout=GRACE)
        if self._write:
            self._write.given_up.set()
            if comm.rank() and not self.failed():
                self._write.wait_until_whole(GRACE)
        self._thread.shutdown()
        if self._copies:
            self._copies.close()


@dataclass(frozen=True)
class _Write:
    """A checkpoint on its way to the disk."""

    final: Path
    aside: Path
    tensors: dict[str, dict[str, Tensor]]
    """the engine's, by file; rank 0 has them"""
    bank: BankCopy
    texts: dict[str, str]
    """contents of files, by name"""
    keep: int
    given_up: threading.Event
    copies: CheckpointCopies | None

    def begin(self) -> None:
        """Before any rank writes."""
        if comm.rank() == 0:
            self._named(self._make_empty)

    def part(self) -> None:
        """This rank's part; in the thread."""
        self._named(self._write_part)

    def whole(self, part: Future[None]) -> None:
        """Once all parts are there, on rank 0; in the thread."""
        notes, delay = [self.aside / NOTES / NOTE.format(rank) for rank in range(comm.world())], _SOONEST
        while part.exception() is None and not all(note.exists() for note in notes):
            if self.given_up.wait(delay):
                return
            delay = min(_LATEST, 1.5 * delay)
        if part.exception() is None:
            self._named(lambda: self._write_whole([json.loads(note.read_text()) for note in notes]))

    def wait_until_whole(self, seconds: float) -> None:
        """On the other ranks: the first to leave has the launcher end rank 0 too, which is still at it."""
        newest, end = self.final.parent / LATEST, time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(OSError):
                if newest.read_text(encoding="utf-8").strip() == self.final.name:
                    break
            time.sleep(_SOONEST)

    def _named(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except (OSError, SafetensorError) as problem:
            remedy = "make room; the same command goes on from the checkpoint before"
            raise RunError(f"{self.final} cannot be written", problem, remedy) from problem

    def _make_empty(self) -> None:
        shutil.rmtree(self.aside, ignore_errors=True)
        (self.aside / NOTES).mkdir(parents=True)

    def _write_part(self) -> None:
        if self.tensors:
            (self.aside / "engine").mkdir(exist_ok=True)
        for name, tensors in self.tensors.items():
            path = self.aside / "engine" / f"{name}.safetensors"
            save_file(tensors, path)
            flush(path)
        # The bank is the only part that every rank writes itself: it would not fit on one.
        note = self.bank.write(self.aside / BANK)
        with replacing(self.aside / NOTES / NOTE.format(comm.rank()), durable=True) as path:
            path.write_text(json.dumps(note))

    def _write_whole(self, parts: list[dict[str, Any]]) -> None:
        self.bank.finish(self.aside / BANK, parts)
        shutil.rmtree(self.aside / NOTES)
        for name, text in self.texts.items():
            (self.aside / name).write_text(text, encoding="utf-8")
        for path in (*self.aside.rglob("*"), self.aside):
            flush(path)  # before `latest` names it, lest a crash of the machine leave the name alone
        # There is one of this name after a return to an older checkpoint.
        shutil.rmtree(self.final, ignore_errors=True)
        os.replace(self.aside, self.final)
        with replacing(self.final.parent / LATEST, durable=True) as newest:
            newest.write_text(self.final.name + "\n")
        prune(self.final, self.keep)
        if self.copies:
            self.copies.offer(self.final)


def _trouble(work: Callable[[], Any]) -> RunError | None:
    """What this rank cannot do, for all to know."""
    try:
        work()
    except RunError as error:
        return error
    return None


def _in_host_memory(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies, also of what is in host memory already: the next step writes to that."""
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
