"""A bank's answer to a step, said beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

from spml_dist.records import BankCandidates, Candidates
from spml_dist.tensor_records import concatenate


def remembering(kept: Sequence[Candidates]) -> Callable[[Candidates], BankCandidates]:
    """What a bank says that remembers these rows, each for itself."""

    def recall(rows: Candidates) -> BankCandidates:
        none = Candidates(*(getattr(rows, f.name)[:0].detach() for f in fields(Candidates)))
        return BankCandidates(concatenate([none, *kept]))

    return recall
