"""The last steps' segments: the paper's memory bank."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from spml_dist.records import Memory, Rows


class RecentBank:
    """Keeps the rows of the last `steps` steps, oldest first, the same on every rank.

    Every rank publishes the same gathered rows, so the bank needs no exchange of its own. Empty means
    empty: before the first step there are no rows.
    """

    def __init__(self, steps: int):
        self._kept: deque[Rows] = deque(maxlen=steps)

    def publish(self, rows: Rows) -> None:
        """Remember a step's rows (copied, detached); the oldest step falls out."""
        self._kept.append(Rows(*(getattr(rows, f.name).detach().clone() for f in fields(Rows))))

    def rows(self) -> list[Rows]:
        """What is remembered, oldest step first."""
        return list(self._kept)

    def recall(self, rows: Rows) -> Memory:
        """Everything that is remembered, as candidates of a step with the segments `rows`."""
        none = Rows(*(getattr(rows, f.name)[:0].detach() for f in fields(Rows)))
        return Memory(concatenate([none, *self._kept]))

    def state(self) -> dict[str, Tensor]:
        """Everything needed to restore the bank, as flat tensors."""
        return {
            f"{i}.{f.name}": getattr(rows, f.name) for i, rows in enumerate(self._kept) for f in fields(Rows)
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned. Raises KeyError where a part of it is missing."""
        self._kept.clear()
        for i in range(-(-len(state) // len(fields(Rows)))):
            self._kept.append(Rows(*(state[f"{i}.{f.name}"] for f in fields(Rows))))

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._kept)


def concatenate(parts: Sequence[Rows]) -> Rows:
    """All rows as one record, in the given order."""
    return Rows(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Rows)))
