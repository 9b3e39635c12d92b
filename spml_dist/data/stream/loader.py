"""Batches of this rank with the state that resumes after them, decoded ahead by loader processes."""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import json
import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Sampler

from spml_dist.data.format.manifest import Manifest, read_manifest
from spml_dist.data.stream.batches import Made, MicroBatches, View
from spml_dist.data.stream.plan import Plan
from spml_dist.data.stream.reader import OPEN_SHARDS, Reader
from spml_dist.data.stream.shard_cache import Cache
from spml_dist.errors import DataError, RunError
from spml_dist.records import IMAGENET, Batch, Normalisation

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""settings of glibc's mallopt"""

log = logging.getLogger(__name__)


class Stream:
    """An endless stream of steps: each is (this rank's micro-batches, the state that resumes after it).

    folder: packed shards with their manifest, a path or an address; num_classes: what the model was built
    for; batch: images of a step over all ranks and micro-batches; crop: pixels of the square crop; scale,
    mirror, mirror_swaps: see `augment`; window_shards, seed: see `Plan`; loader_processes: processes that
    decode ahead, 0 decodes in this one; skip_corrupt: see `MicroBatches`; cache: for shards at addresses;
    rank, world: this rank's place among all; accumulation: micro-batches of a step; normalisation: of the
    images; start_state: the state to resume from, whose normalisation holds, None for the beginning.

    Batches are bitwise the same for any number of loader processes, and their images for any world.
    DataError: an unusable shard or manifest (raised here also when a loader process found it); RunError:
    a state that belongs to another stream.
    """

    skipped: Counter[str]
    """corrupt samples left out of this rank's batches since the beginning of the iteration: how often each,
    by the line that names its tar, its key and the reason; each is logged once"""

    def __init__(
        self,
        folder: str | Path,
        *,
        num_classes: int,
        batch: int,
        crop: int,
        scale: tuple[float, float],
        mirror: bool,
        mirror_swaps: Sequence[tuple[int, int]] = (),
        window_shards: int,
        seed: int,
        loader_processes: int = 0,
        skip_corrupt: float = 0.0,
        cache: Cache | None = None,
        rank: int = 0,
        world: int = 1,
        accumulation: int = 1,
        normalisation: Normalisation = IMAGENET,
        start_state: dict | None = None,
    ):
        manifest = read_manifest(folder)
        _check(folder, manifest, num_classes)
        plan = Plan([shard.samples for shard in manifest.shards], batch, seed, window_shards)
        self.fingerprint = fingerprint(manifest, batch, seed, window_shards)
        self.accumulation = accumulation
        self.start_step = start_of(folder, start_state, self.fingerprint)
        self.skipped = Counter()
        self.normalisation = normalisation if start_state is None else Normalisation.of(start_state)
        self._batches = MicroBatches(
            plan,
            # A batch may take samples of two windows.
            Reader(folder, manifest, False, cache, open_shards=max(OPEN_SHARDS, 2 * window_shards)),
            View(crop, tuple(scale), mirror, tuple(mirror_swaps), self.normalisation),
            rank,
            world,
            accumulation,
            skip_corrupt,
        )
        self._loader_processes = loader_processes

    def __iter__(self) -> Iterator[tuple[list[Batch], dict]]:
        made = iter(self._loader())
        try:
            for step in count(self.start_step):
                micro_batches = [self._counted(next(made)) for _ in range(self.accumulation)]
                state = {"step": step + 1, "fingerprint": self.fingerprint}
                yield micro_batches, state | asdict(self.normalisation)
        finally:
            del made  # ends the loader processes now, not when the last traceback lets go of this frame

    def _counted(self, made: Made | DataError) -> Batch:
        if isinstance(made, DataError):
            raise made
        for reason in made.left_out:
            if reason not in self.skipped:
                log.warning("left out: %s", reason)
            self.skipped[reason] += 1
        return made.batch

    def _loader(self) -> DataLoader:
        return DataLoader(
            self._batches,
            sampler=_Places(self.start_step, self.accumulation),
            batch_size=None,
            num_workers=self._loader_processes,
            # Neither copies the threads of the training process (gloo, Ray), as a fork would, nor outlives
            # it when it is killed, as children of a fork server do.
            multiprocessing_context="spawn" if self._loader_processes else None,
            worker_init_fn=_begin,
            # A generator of its own, so that making the loader draws nothing from the training's.
            generator=torch.Generator(),
        )


def _begin(process: int) -> None:
    """Prepare a loader process."""
    keep_memory()
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


class _Places(Sampler):
    """(step, micro-batch) in order, without end."""

    def __init__(self, start_step: int, accumulation: int):
        self.start_step = start_step
        self.accumulation = accumulation

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((step, micro) for step in count(self.start_step) for micro in range(self.accumulation))


def _check(folder: str | Path, manifest: Manifest, num_classes: int) -> None:
    if not manifest.samples:
        raise DataError(f"{folder}: holds no samples", None, "pack a split that has images")
    if len(manifest.classes) != num_classes:
        raise DataError(
            f"{folder}: number of classes, where {num_classes} are expected",
            len(manifest.classes),
            "training and evaluation data need the same classes",
        )


def fingerprint(manifest: Manifest, batch: int, seed: int, window_shards: int) -> str:
    """Digest of everything that decides which samples a step holds."""
    shards = [(shard.samples, shard.sha256) for shard in manifest.shards]
    content = json.dumps([shards, manifest.classes, batch, seed, window_shards])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def start_of(folder: str | Path, state: dict | None, fingerprint: str) -> int:
    """The step that a state of `Stream` leads to. Raises RunError for a state of another stream."""
    if state is None:
        return 0
    if state["fingerprint"] != fingerprint:
        raise RunError(
            f"{folder}: data.train was packed anew or changed since the checkpoint, or its order did",
            None,
            "to resume, give back the same tars, stream.batch, stream.window_shards and seed; "
            "to train on what is there now, give another name",
        )
    return state["step"]
