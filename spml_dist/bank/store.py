"""The rows of one worker, in slots. Rows are the truth; whatever is indexed can be rebuilt from them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor

from spml_dist.bank.counts import RunningCounts
from spml_dist.bank.drift import BoxedVectors, drift
from spml_dist.bank.rows import empty
from spml_dist.bank.search.filters import filter_columns
from spml_dist.errors import RunError
from spml_dist.records import BankRows
from spml_dist.tensor_records import take


@dataclass(frozen=True)
class ImageSlots:
    """An image in the store."""

    slots: np.ndarray
    """int64, in the order of its segments"""
    written: tuple[int, int, int]
    """step, position in that step's global batch, image: the order in which images go"""
    check: int


class Store:
    """Images of some partitions, each a set of rows that come and go together.

    Memory is taken for `capacity` rows a partition, once. A partition that is full gives up its oldest
    images. No answer of a store depends on which slots its rows are in.
    """

    def __init__(
        self, owned: range, partitions: int, capacity: int, dim: int, classes: int, storage: str, device=None
    ):
        """owned: partitions of this worker, of `partitions` in all; capacity: rows of each."""
        self.owned, self.partitions, self.capacity = owned, partitions, capacity
        self.rows: BankRows = empty(len(owned) * capacity, dim, classes, storage, device)
        self.alive = torch.zeros(len(owned) * capacity, dtype=torch.bool, device=device)
        self.used = 0
        """slots that were ever written; all rows are below"""
        self.drift: list[float] = []
        """cosines of segments with what they replaced, since somebody emptied the list"""
        self.counts = RunningCounts(classes, self.rows.tags.shape[1], device)
        """of the rows there are"""
        self.changed: set[int] = set()
        """partitions that got or lost an image, since somebody emptied the set"""
        self._free: list[int] = []
        self._images: dict[int, dict[int, ImageSlots]] = {partition: {} for partition in owned}
        """of each partition, oldest first"""
        self._row_counts = dict.fromkeys(owned, 0)

    def __len__(self) -> int:
        return sum(self._row_counts.values())

    def put(self, rows: BankRows) -> Tensor:
        """Remember whole images; the slots that were written, [n] int64.

        An image replaces what is known of it, unless that was written later. The order of `rows` does not
        matter; the rows of an image have one step and position.
        Raises RunError when two keys have one hash, or an image is larger than a partition; nothing is
        remembered then.
        """
        images = _by_image(rows)
        self._refuse(images)
        # By image, the indices of its rows. They are written at the end: an image of this call may still
        # be replaced or evicted by a later one.
        slots: dict[int, np.ndarray] = {}
        gone: list[np.ndarray] = []
        for members, image, check, written in images:
            partition = image % self.partitions
            before = self._images[partition].get(image)
            if before and before.written > written:
                continue
            if before:
                if image not in slots:
                    old = _placed(self.rows, self._on_device(before.slots))
                    self.drift += drift(old, _placed(rows, torch.from_numpy(members)))
                    gone.append(before.slots)
                self._forget(partition, image)
                slots.pop(image, None)
            for oldest, its_slots in self._make_room(partition, written, len(members)):
                if slots.pop(oldest, None) is None:
                    gone.append(its_slots)
            if self._row_counts[partition] + len(members) <= self.capacity:
                self._insert(partition, image, ImageSlots(self._slots(len(members)), written, check))
                slots[image] = members
        self._count_out(gone)  # before other rows are in their slots
        return self._write(rows, slots)

    def expire(self, before: int) -> None:
        """Forget the images written before a step."""
        gone = []
        for partition, images in self._images.items():
            old = takewhile(lambda item: item[1].written[0] < before, images.items())
            gone += [self._forget(partition, image) for image, _ in list(old)]
        self._count_out(gone)

    def slots_of(self, image: int) -> np.ndarray:
        """Slots of an image's rows, int64; none if it is unknown or somebody else's."""
        entry = self._images.get(image % self.partitions, {}).get(image)
        return entry.slots if entry else np.zeros(0, np.int64)

    def written_rows(self) -> BankRows:
        """The rows of the slots that were ever written, as views; some are of forgotten images."""
        return take(self.rows, slice(0, self.used))

    def live(self, partition: int | None = None) -> Tensor:
        """[n] int64: the slots that hold rows, all of them or a partition's, oldest image first."""
        partitions = self._images.values() if partition is None else [self._images[partition]]
        slots = [entry.slots for images in partitions for entry in images.values()]
        return self._on_device(np.concatenate([*slots, np.zeros(0, np.int64)]))

    def _refuse(self, images: list[tuple[np.ndarray, int, int, tuple]]) -> None:
        """Raise for a collision with a known image or among these, and for an image that is too large."""
        checks: dict[int, int] = {}
        for members, image, check, _ in images:
            known = self._images[image % self.partitions].get(image)
            if check != checks.setdefault(image, known.check if known else check):
                raise _collision(image)
            if len(members) > self.capacity:
                raise too_large(len(members), self.capacity, self.partitions)

    def _make_room(self, partition: int, written: tuple, count: int) -> list[tuple[int, np.ndarray]]:
        """Forget images older than `written` until there is room or none is left; those that went, and their
        slots."""
        gone, images = [], self._images[partition]
        while self._row_counts[partition] + count > self.capacity:
            oldest = next(iter(images))
            if images[oldest].written > written:
                break
            gone.append((oldest, self._forget(partition, oldest)))
        return gone

    def _insert(self, partition: int, image: int, entry: ImageSlots) -> None:
        images = self._images[partition]
        late = images and next(reversed(images.values())).written > entry.written
        images[image] = entry
        self.changed.add(partition)
        self._row_counts[partition] += len(entry.slots)
        if late:
            self._images[partition] = dict(sorted(images.items(), key=lambda item: item[1].written))

    def _slots(self, count: int) -> np.ndarray:
        reused = [self._free.pop() for _ in range(min(count, len(self._free)))]
        fresh = range(self.used, self.used + count - len(reused))
        self.used += len(fresh)
        return np.array([*reused, *fresh], np.int64)

    def _forget(self, partition: int, image: int) -> np.ndarray:
        """Give up an image; its slots, in which its rows are until others come."""
        slots = self._images[partition].pop(image).slots
        self.changed.add(partition)
        self._row_counts[partition] -= len(slots)
        self._free += slots.tolist()
        self.alive[self._on_device(slots)] = False
        return slots

    def _count_out(self, gone: list[np.ndarray]) -> None:
        if gone:
            self.counts.went(filter_columns(self.rows, self._on_device(np.concatenate(gone))))

    def _write(self, rows: BankRows, members: dict[int, np.ndarray]) -> Tensor:
        nothing = np.zeros(0, np.int64)
        taken = np.concatenate([*(self.slots_of(image) for image in members), nothing])
        slots = self._on_device(taken)
        source = torch.from_numpy(np.concatenate([*members.values(), nothing])).to(rows.image.device)
        for field in fields(BankRows):
            getattr(self.rows, field.name)[slots] = getattr(rows, field.name)[source].to(slots.device)
        self.alive[slots] = True
        self.counts.came(filter_columns(self.rows, slots))
        return slots

    def _on_device(self, slots: np.ndarray) -> Tensor:
        return torch.from_numpy(slots).to(self.alive.device)


def too_large(count: int, capacity: int, partitions: int) -> RunError:
    """An image that no partition can hold."""
    return RunError(
        f"an image has {count} segments, and each of the bank's {partitions} parts holds {capacity} rows",
        None,
        f"raise bank.capacity to {count * partitions} or more, or lower bank.partitions (with another name=)",
    )


def _placed(rows: BankRows, index: Tensor) -> BoxedVectors:
    return BoxedVectors(rows.vector[index], rows.box[index])


def _collision(image: int) -> RunError:
    remedy = "rename the image that was met last and pack again"
    return RunError("two sample keys have the same 64-bit hash", image, remedy)


def _by_image(rows: BankRows) -> list[tuple[np.ndarray, int, int, tuple[int, int, int]]]:
    """Of each image the indices of its rows by segment, its hash, its check and its place in the order of
    writing, in which they are."""
    image, check, segment, step, position = (
        getattr(rows, name).cpu().numpy() for name in ("image", "check", "segment", "step", "position")
    )
    if not len(image):
        return []
    order = np.lexsort((segment, image, position, step))
    keys = np.stack([image, position, step])[:, order]
    images = np.split(order, np.flatnonzero((np.diff(keys) != 0).any(axis=0)) + 1)
    first = [members[0] for members in images]
    places = zip(*(column[first].tolist() for column in (image, check, step, position)), strict=True)
    return [(m, i, c, (s, p, i)) for m, (i, c, s, p) in zip(images, places, strict=True)]
