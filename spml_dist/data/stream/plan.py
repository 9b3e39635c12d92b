"""Which samples a step consists of: arithmetic on the shard sizes, without state and without data.

The stream is the concatenation of one permutation per epoch, cut into global batches. Nothing is dropped: a
batch may straddle two epochs, and may be larger than the data set. Which images a step holds depends neither
on the number of workers nor on the steps before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KEPT_POOLS = 4
"""Shuffled windows that are remembered: consecutive steps fall into the same one or two."""


@dataclass(frozen=True)
class Draw:
    """One image of a global batch."""

    epoch: int
    shard: int
    index: int
    """place of the sample in its shard"""
    position: int
    """place of the image in the global batch"""


def cut(count: int, parts: int, part: int) -> tuple[int, int]:
    """Start and stop of one of `parts` contiguous, near-equal pieces of range(count), longest first."""
    quotient, rest = divmod(count, parts)
    start = part * quotient + min(part, rest)
    return start, start + quotient + (part < rest)


class Plan:
    """The order of the stream.

    An epoch's permutation has two levels, so that few shards are open at a time: the shards are shuffled,
    then each run of `window_shards` consecutive shards is pooled and shuffled as one.

    shard_sizes: samples of each shard, together at least one; batch: images of a global batch;
    seed: an integer of 64 bits; window_shards: at least 1.
    """

    def __init__(self, shard_sizes: Sequence[int], batch: int, seed: int, window_shards: int):
        self.shard_sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.samples = int(self.shard_sizes.sum())
        self.batch_size = batch
        self.seed = seed
        self.window_shards = window_shards
        self._pools: dict[tuple[int, int], np.ndarray] = {}
        self._orders: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        if self.samples < 1 or batch < 1 or window_shards < 1:
            counts = f"{self.samples} samples, batch {batch}, {window_shards} shards a window"
            raise ValueError(f"a plan needs at least one of each: {counts}")

    def batch(self, step: int) -> tuple[Draw, ...]:
        """The global batch of a step, in order."""
        return self._draws(step, 0, self.batch_size)

    def part(
        self, step: int, rank: int, world: int, micro: int = 0, accumulation: int = 1
    ) -> tuple[Draw, ...]:
        """What one rank processes in one micro-batch; empty where there are more ranks than images.

        The global batch is first cut into micro-batches and each of them is dealt to the ranks, so that a
        micro-batch holds the same images for any number of ranks. All cuts are contiguous and near-equal.
        """
        # In this order: were a batch dealt to the ranks first, a micro-batch of all ranks would hold other
        # images for another number of ranks, and a sum over micro-batches other terms.
        start, stop = cut(self.batch_size, accumulation, micro)
        first, last = cut(stop - start, world, rank)
        return self._draws(step, start + first, start + last)

    def shards_around(self, step: int) -> tuple[int, ...]:
        """The shards that are open as a step begins, and those of the window after them."""
        epoch, offset = divmod(step * self.batch_size, self.samples)
        # The first window whose end lies beyond the offset, which counts samples of the epoch.
        window = int(np.searchsorted(self._order(epoch)[1], offset, side="right"))
        return self._shards(epoch, window) + self._shards(*self._next_window(epoch, window))

    def _next_window(self, epoch: int, window: int) -> tuple[int, int]:
        last = window + 1 == len(self._order(epoch)[1])
        return (epoch + 1, 0) if last else (epoch, window + 1)

    def _shards(self, epoch: int, window: int) -> tuple[int, ...]:
        first = window * self.window_shards
        return tuple(self._order(epoch)[0][first : first + self.window_shards].tolist())

    def _draws(self, step: int, start: int, stop: int) -> tuple[Draw, ...]:
        first = step * self.batch_size
        return tuple(self._draw(first + position, position) for position in range(start, stop))

    def _draw(self, place: int, position: int) -> Draw:
        # `place` counts images since the beginning of the stream. Epochs follow one another without a gap, so
        # a batch that straddles two needs no case of its own, nor one that is larger than the data set.
        epoch, offset = divmod(place, self.samples)
        _, ends = self._order(epoch)
        window = int(np.searchsorted(ends, offset, side="right"))
        begin = int(ends[window - 1]) if window else 0
        shard, index = self._pool(epoch, window)[offset - begin]
        return Draw(epoch, int(shard), int(index), position)

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch's shards in order, and the number of samples up to the end of each window."""
        if epoch not in self._orders:
            # Stream 0 of an epoch orders its shards, stream w + 1 the samples of its window w.
            order = self._permutation(len(self.shard_sizes), epoch, 0)
            firsts = np.arange(0, len(order), self.window_shards)
            ends = np.cumsum(np.add.reduceat(self.shard_sizes[order], firsts))
            _remember(self._orders, epoch, (order, ends))
        return self._orders[epoch]

    def _pool(self, epoch: int, window: int) -> np.ndarray:
        """[n, 2] int64: (shard, index) of a window's samples, shuffled."""
        if (epoch, window) not in self._pools:
            shards = self._shards(epoch, window)
            pool = np.concatenate([_column(shard, self.shard_sizes[shard]) for shard in shards])
            shuffled = pool[self._permutation(len(pool), epoch, window + 1)]
            _remember(self._pools, (epoch, window), shuffled)
        return self._pools[epoch, window]

    def _permutation(self, count: int, epoch: int, stream: int) -> np.ndarray:
        # Sorting raw words rather than Generator.permutation: only the raw words of a bit generator are
        # promised to stay the same from one numpy to the next.
        # Seed and epoch are the key and the stream is the highest word of the counter: no two permutations
        # share words, and each is drawn without those before it.
        key = np.array([self.seed % 2**64, epoch], dtype=np.uint64)
        words = np.random.Philox(key=key, counter=[0, 0, 0, stream]).random_raw(count)
        return np.argsort(words, kind="stable")


def _column(shard: int, size: int) -> np.ndarray:
    return np.stack([np.full(size, shard, dtype=np.int64), np.arange(size)], axis=1)


def _remember(cache: dict, key: object, value: object) -> None:
    # The oldest goes first; dictionaries keep the order of insertion.
    while len(cache) >= KEPT_POOLS:
        cache.pop(next(iter(cache)))
    cache[key] = value
