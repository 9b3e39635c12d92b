"""A bank whose candidates are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from spml_dist.bank.recent import RecentBank
from spml_dist.records import Candidates


def remembering(kept: Sequence[Candidates]) -> RecentBank:
    """A bank of these rows, each for itself."""
    bank = RecentBank(len(kept))
    for rows in kept:
        bank.add(rows)
    return bank
