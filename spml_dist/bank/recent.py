"""The last steps' segments: the paper's memory bank."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from spml_dist import comm
from spml_dist.bank.snapshot_folder import MANIFEST, RECENT_ROWS, another_kind, damaged, unwritable
from spml_dist.records import BankCandidates, BatchSegments, Candidates
from spml_dist.tensor_records import concatenate, copied, detached, take

CPU = torch.device("cpu")


class RecentBank:
    """A `SegmentBank` of the last `steps` steps, oldest first, the same on every rank.

    The segments of a step are gathered for its loss anyway, so every rank keeps all of them and the bank
    needs no exchange of its own. Empty means empty: before the first step there are no rows.
    """

    def __init__(self, steps: int, device: torch.device = CPU):
        """device: where rows go that are restored."""
        self._steps: deque[Candidates] = deque(maxlen=steps)
        self._device = device

    def candidates(self, segments: Candidates, step: int, measure: bool = False) -> BankCandidates:
        """Every row, each for itself; `SegmentBank.candidates`."""
        none = take(detached(segments), slice(0))
        return BankCandidates(concatenate([none, *self._steps]))

    def publish(self, parts: Sequence[BatchSegments], step: int) -> None:
        """The oldest step goes; `SegmentBank.publish`."""
        if parts:
            self.add(concatenate([part.candidates for part in parts]))

    def add(self, rows: Candidates) -> None:
        """Remember a step's segments of all ranks, copied."""
        self._steps.append(copied(rows))

    def rows(self) -> list[Candidates]:
        """What is remembered, oldest step first."""
        return list(self._steps)

    def report(self, step: int) -> dict[str, float]:
        return {"bank/rows": len(self)}

    def copied(self, previous: Path | None = None) -> RecentCopy:
        """`SegmentBank.copied`."""
        return RecentCopy(self.state() if comm.rank() == 0 else {})

    def restore(self, folder: Path) -> None:
        """`SegmentBank.restore`."""
        trouble = another_kind(folder, MANIFEST, "recent")
        if trouble is None:
            path = folder / RECENT_ROWS
            try:
                self.load_state(load_file(path, str(self._device)))
            except (OSError, KeyError, SafetensorError) as problem:
                trouble = damaged(path, problem)
        comm.agree(trouble)

    def state(self) -> dict[str, Tensor]:
        """Everything needed to restore the bank, as flat tensors."""
        return {
            f"{i}.{f.name}": getattr(rows, f.name)
            for i, rows in enumerate(self._steps)
            for f in fields(Candidates)
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned. Raises KeyError where a part of it is missing."""
        steps = range(-(-len(state) // len(fields(Candidates))))
        rows = [Candidates(*(state[f"{i}.{f.name}"] for f in fields(Candidates))) for i in steps]
        self._steps.clear()
        self._steps.extend(rows)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._steps)


class RecentCopy:
    """A `BankCopy`: rank 0 writes what all ranks have."""

    def __init__(self, state: dict[str, Tensor]):
        """state: of the bank, whose tensors are never written to again; empty beside rank 0."""
        self._tensors = {name: value.cpu().contiguous() for name, value in state.items()}
        self._writes = comm.rank() == 0

    def write(self, folder: Path) -> dict[str, Any]:
        """`BankCopy.write`."""
        if self._writes:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                save_file(self._tensors, folder / RECENT_ROWS)
            except (OSError, SafetensorError) as problem:
                raise unwritable(folder, problem) from problem
        return {}

    def finish(self, folder: Path, parts: list[dict[str, Any]]) -> None:
        """There is one part."""
