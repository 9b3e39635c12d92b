"""Batches of this rank with the state that resumes after them, decoded ahead by loader processes."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from spml_dist.errors import DataError, RunError
from spml_dist.schema import Batch, Sample
from spml_dist.shards.manifest import Manifest, read_manifest
from spml_dist.stream.augment import augment, rng_for
from spml_dist.stream.plan import Draw, Plan
from spml_dist.stream.reader import Reader


class Stream:
    """An endless stream of steps: each is (this rank's micro-batches, the state that resumes after it).

    folder: packed shards with their manifest; num_classes: what the model was built for; batch: images of a
    step over all ranks and micro-batches; crop: pixels of the square crop; scale, mirror: see `augment`;
    window_shards, seed: see `Plan`; loader_processes: processes that decode ahead, 0 decodes in this one;
    rank, world: this rank's place among all; accumulation: micro-batches of a step; start_state: the state
    to resume from, None for the beginning.

    Batches are bitwise the same for any number of loader processes, and their images for any world.
    DataError: an unusable shard or manifest (raised here also when a loader process found it); RunError:
    a state that belongs to another stream.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        num_classes: int,
        batch: int,
        crop: int,
        scale: tuple[float, float],
        mirror: bool,
        window_shards: int,
        seed: int,
        loader_processes: int = 0,
        rank: int = 0,
        world: int = 1,
        accumulation: int = 1,
        start_state: dict | None = None,
    ):
        manifest = read_manifest(folder)
        _check(folder, manifest, num_classes)
        plan = Plan([shard.samples for shard in manifest.shards], batch, seed, window_shards)
        self.fingerprint = _fingerprint(manifest, batch, seed, window_shards)
        self.accumulation = accumulation
        self.start_step = _start(folder, start_state, self.fingerprint)
        self._batches = _MicroBatches(
            plan=plan,
            reader=Reader(folder, manifest, masks=False),
            part=(rank, world, accumulation),
            view=(crop, tuple(scale), mirror),
        )
        self._loader_processes = loader_processes

    def __iter__(self) -> Iterator[tuple[list[Batch], dict]]:
        batches = iter(self._loader())
        try:
            for step in count(self.start_step):
                micro_batches = [_raised(next(batches)) for _ in range(self.accumulation)]
                yield micro_batches, {"step": step + 1, "fingerprint": self.fingerprint}
        finally:
            del batches  # ends the loader processes now, not when the last traceback lets go of this frame

    def _loader(self) -> DataLoader:
        return DataLoader(
            self._batches,
            sampler=_Places(self.start_step, self.accumulation),
            batch_size=None,
            num_workers=self._loader_processes,
            # Neither copies the threads of the training process (gloo, Ray), as a fork would, nor outlives
            # it when it is killed, as children of a fork server do.
            multiprocessing_context="spawn" if self._loader_processes else None,
            worker_init_fn=_end_abruptly,
            # A generator of its own, so that making the loader draws nothing from the training's.
            generator=torch.Generator(),
        )


def _end_abruptly(process: int) -> None:
    """Let a loader process skip the interpreter's farewell.

    Its thread that hands over batches may just be inside torch, where being ended aborts the process.
    """
    atexit.register(os._exit, 0)


class _Places(Sampler):
    """(step, micro-batch) in order, without end."""

    def __init__(self, start_step: int, accumulation: int):
        self.start_step = start_step
        self.accumulation = accumulation

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((step, micro) for step in count(self.start_step) for micro in range(self.accumulation))


class _MicroBatches(Dataset):
    """This rank's micro-batch at (step, micro); what a loader process holds."""

    def __init__(self, plan: Plan, reader: Reader, part: tuple, view: tuple):
        self.plan = plan
        self.reader = reader
        self.part = part
        self.view = view

    def __getitem__(self, place: tuple[int, int]) -> Batch | DataError:
        try:
            return self._batch(*place)
        except DataError as error:
            return error  # as a value: raised in a loader process it would arrive as its traceback's text

    def _batch(self, step: int, micro: int) -> Batch:
        rank, world, accumulation = self.part
        crop, scale, mirror = self.view
        draws = self.plan.part(step, rank, world, micro, accumulation)
        samples = [self.reader.read(draw.shard, draw.index) for draw in draws]
        views = [
            augment(
                sample.image,
                (sample.semantic, sample.regions),
                rng_for(self.plan.seed, draw.epoch, sample.key),
                (crop, crop),
                scale,
                mirror,
            )
            for draw, sample in zip(draws, samples, strict=True)
        ]
        epoch = step * self.plan.batch_size // self.plan.samples
        return collate(draws, samples, views, len(self.reader.manifest.classes), crop, epoch)


def collate(
    draws: Sequence[Draw],
    samples: Sequence[Sample],
    views: Sequence[tuple[np.ndarray, tuple[np.ndarray, ...]]],
    num_classes: int,
    crop: int,
    epoch: int,
) -> Batch:
    """Samples and their augmented views (image, (semantic, regions)) as one Batch; of no images too."""
    size = len(draws)
    image = np.empty((size, 3, crop, crop), dtype=np.float32)
    semantic = np.empty((size, crop, crop), dtype=np.uint8)
    regions = np.empty((size, crop, crop), dtype=np.int32)
    tags = np.zeros((size, num_classes), dtype=bool)
    for i, (sample, view) in enumerate(zip(samples, views, strict=True)):
        image[i], (semantic[i], regions[i]) = view
        tags[i, list(sample.tags or ())] = True
    return Batch(
        keys=tuple(sample.key for sample in samples),
        position=torch.tensor([draw.position for draw in draws], dtype=torch.int64),
        image=torch.from_numpy(image),
        semantic=torch.from_numpy(semantic),
        regions=torch.from_numpy(regions),
        tags=torch.from_numpy(tags),
        tags_known=torch.tensor([sample.tags is not None for sample in samples], dtype=torch.bool),
        epoch=epoch,
    )


def _check(folder: str | Path, manifest: Manifest, num_classes: int) -> None:
    if not manifest.samples:
        raise DataError(f"{folder}: holds no samples", None, "pack a split that has pictures")
    if len(manifest.classes) != num_classes:
        raise DataError(
            f"{folder}: number of classes, where {num_classes} are expected",
            len(manifest.classes),
            "training and evaluation data need the same classes",
        )


def _fingerprint(manifest: Manifest, batch: int, seed: int, window_shards: int) -> str:
    """Digest of everything that decides which samples a step holds."""
    shards = [(shard.samples, shard.sha256) for shard in manifest.shards]
    content = json.dumps([shards, manifest.classes, batch, seed, window_shards])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _start(folder: str | Path, state: dict | None, fingerprint: str) -> int:
    if state is None:
        return 0
    if state["fingerprint"] != fingerprint:
        raise RunError(
            f"{folder}: not the stream that the saved state belongs to",
            state["fingerprint"],
            "resume with the same shards, stream.batch, stream.window_shards and seed, or start a new run",
        )
    return state["step"]


def _raised(batch: Batch | DataError) -> Batch:
    if isinstance(batch, DataError):
        raise batch
    return batch
