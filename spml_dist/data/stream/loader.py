"""Batches of this rank with the state that resumes after them, decoded ahead by loader processes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import count
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Sampler

from spml_dist import comm
from spml_dist.data.format.manifest import Manifest, read_manifest
from spml_dist.data.stream.batches import Augmentation, MicroBatch, MicroBatches
from spml_dist.data.stream.loader_process import prepare
from spml_dist.data.stream.plan import Plan
from spml_dist.data.stream.reader import OPEN_SHARDS, Reader
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.errors import DataError, RunError
from spml_dist.records import IMAGENET, Batch, Normalisation

log = logging.getLogger(__name__)


class Stream:
    """An endless stream of training batches from packed shards:

        for batch in Stream("data/train", batch=8, crop=128):
            embeddings = network(batch.image)  # [8, 3, 128, 128] float32

    A step is one global batch, the same images for any number of ranks. Iterating yields this rank's
    micro-batches, one a step unless `accumulation` says more; `steps` yields them step by step. Iterating
    again goes on with the next step, and so does a stream that is made with `start_state=stream.state()`.

    folder: packed shards with their manifest, a path or an address; batch: images of a step over all ranks
    and micro-batches; crop: pixels of the square crop; num_classes: what the network was built for, None for
    whatever the manifest says; scale, mirror, mirror_swaps, grey, blur: see `augment`; window_shards, seed:
    see `Plan`; loader_processes: processes that decode ahead, 0 decodes in this one; skip_corrupt: see
    `MicroBatches`;
    cache: for shards at addresses; rank, world: this rank's place among all, None for that in the process
    group, if there is one; accumulation: micro-batches of a step; normalisation: of the images, by the
    network's weights; start_state: the state to resume from, whose normalisation holds then, None for the
    beginning.

    Batches are bitwise the same for any number of loader processes, and their images for any world.
    DataError: an unusable shard or manifest (raised here also when a loader process found it); RunError:
    a state that belongs to another stream.
    """

    normalisation: Normalisation
    """of its images"""
    start_step: int
    """the first step of this stream"""
    skipped: Counter[str]
    """corrupt samples left out of this rank's batches since the beginning of the iteration: how often each,
    by the line that names its tar, its key and the reason; each is logged once"""

    def __init__(
        self,
        folder: str | Path,
        *,
        batch: int,
        crop: int,
        num_classes: int | None = None,
        scale: tuple[float, float] = (0.5, 1.5),
        mirror: bool = True,
        mirror_swaps: Sequence[tuple[int, int]] = (),
        grey: float = 0.0,
        blur: float = 0.0,
        window_shards: int = 16,
        seed: int = 0,
        loader_processes: int = 0,
        skip_corrupt: float = 0.0,
        cache: ShardCache | None = None,
        rank: int | None = None,
        world: int | None = None,
        accumulation: int = 1,
        normalisation: Normalisation = IMAGENET,
        start_state: dict | None = None,
        pinned: bool = False,
    ):
        manifest = read_manifest(folder)
        _check(folder, manifest, num_classes)
        plan = Plan([shard.samples for shard in manifest.shards], batch, seed, window_shards)
        self.fingerprint = fingerprint(manifest, batch, seed, window_shards)
        self.accumulation = accumulation
        self.start_step = self._step = start_of(folder, start_state, self.fingerprint)
        self.skipped = Counter()
        # A checkpoint's weights go on with the images that they were trained on, whatever is there now.
        self.normalisation = normalisation if start_state is None else Normalisation.of(start_state)
        self._batches = MicroBatches(
            plan,
            # A batch may take samples of two windows.
            Reader(folder, manifest, False, cache, open_shards=max(OPEN_SHARDS, 2 * window_shards)),
            Augmentation(
                crop, (scale[0], scale[1]), mirror, tuple(mirror_swaps), self.normalisation, grey, blur
            ),
            comm.rank() if rank is None else rank,
            comm.world() if world is None else world,
            accumulation,
            skip_corrupt,
        )
        self._loader_processes, self._pinned = loader_processes, pinned

    def __iter__(self) -> Generator[Batch, None, None]:
        """This rank's micro-batches; of no images where there are more ranks than images."""
        with closing(self.steps()) as steps:
            for micro_batches, _ in steps:
                yield from micro_batches

    def steps(self) -> Generator[tuple[list[Batch], dict], None, None]:
        """(this rank's micro-batches of a step, the state that resumes after it), step after step."""
        loaded = iter(self._loader())
        try:
            while True:
                micro_batches = [self._counted(next(loaded)) for _ in range(self.accumulation)]
                # By what was yielded, not by what was loaded: loader processes are several steps ahead.
                self._step += 1
                yield micro_batches, self.state()
        finally:
            del loaded  # ends the loader processes now, not when the last traceback lets go of this frame

    def state(self) -> dict:
        """What `start_state` takes to go on after the step that was yielded last. Plain data.

        It holds no place within a step: of a step of several micro-batches all are over.
        """
        return {"step": self._step, "fingerprint": self.fingerprint, **asdict(self.normalisation)}

    def _counted(self, loaded: MicroBatch | DataError) -> Batch:
        if isinstance(loaded, DataError):
            raise loaded
        for reason in loaded.left_out:
            if reason not in self.skipped:
                log.warning("left out: %s", reason)
            self.skipped[reason] += 1
        return loaded.batch

    def _loader(self) -> DataLoader:
        return DataLoader(
            self._batches,
            sampler=_Order(self._step, self.accumulation),
            batch_size=None,
            num_workers=self._loader_processes,
            pin_memory=self._pinned,
            # Neither copies the threads of the training process (gloo, Ray), as a fork would, nor outlives
            # it when it is killed, as children of a fork server do.
            multiprocessing_context="spawn" if self._loader_processes else None,
            worker_init_fn=prepare,
            # A generator of its own, so that making the loader draws nothing from the training's.
            generator=torch.Generator(),
        )


class _Order(Sampler):
    """(step, micro-batch) in order, without end."""

    def __init__(self, start_step: int, accumulation: int):
        self.start_step = start_step
        self.accumulation = accumulation

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((step, micro) for step in count(self.start_step) for micro in range(self.accumulation))


def _check(folder: str | Path, manifest: Manifest, num_classes: int | None) -> None:
    if not manifest.samples:
        raise DataError(f"{folder}: holds no samples", None, "pack a split that has images")
    if num_classes is not None and len(manifest.classes) != num_classes:
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
