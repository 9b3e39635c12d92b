"""The last steps' segments: the paper's memory bank."""

from __future__ import annotations

from collections import deque
from dataclasses import fields

from torch import Tensor

from spml_dist.records import BankCandidates, Candidates
from spml_dist.tensor_records import concatenate, copied, detached, take


class RecentBank:
    """Keeps the rows of the last `steps` steps, oldest first, the same on every rank.

    Every rank publishes the same gathered rows, so the bank needs no exchange of its own. Empty means
    empty: before the first step there are no rows.
    """

    def __init__(self, steps: int):
        self._kept: deque[Candidates] = deque(maxlen=steps)

    def publish(self, rows: Candidates) -> None:
        """Remember a step's rows (copied, detached); the oldest step falls out."""
        self._kept.append(copied(rows))

    def rows(self) -> list[Candidates]:
        """What is remembered, oldest step first."""
        return list(self._kept)

    def recall(self, rows: Candidates) -> BankCandidates:
        """Everything that is remembered, as candidates of a step with the segments `rows`."""
        none = take(detached(rows), slice(0))
        return BankCandidates(concatenate([none, *self._kept]))

    def state(self) -> dict[str, Tensor]:
        """Everything needed to restore the bank, as flat tensors."""
        return {
            f"{i}.{f.name}": getattr(rows, f.name)
            for i, rows in enumerate(self._kept)
            for f in fields(Candidates)
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned. Raises KeyError where a part of it is missing."""
        self._kept.clear()
        for i in range(-(-len(state) // len(fields(Candidates)))):
            self._kept.append(Candidates(*(state[f"{i}.{f.name}"] for f in fields(Candidates))))

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._kept)
