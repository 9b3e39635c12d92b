"""A bank's answer to a step, said beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

from spml_dist.bank.recent import concatenate
from spml_dist.records import Memory, Rows


def remembering(kept: Sequence[Rows]) -> Callable[[Rows], Memory]:
    """What a bank says that remembers these rows, each for itself."""

    def recall(rows: Rows) -> Memory:
        none = Rows(*(getattr(rows, f.name)[:0].detach() for f in fields(Rows)))
        return Memory(concatenate([none, *kept]))

    return recall
