"""How the bank does, for the log: ages, drift, recall, purity, and what its rows add to a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.bank.counts import RowCounts, count, sum_over_ranks
from spml_dist.bank.search.filters import Kind, Queries
from spml_dist.bank.store import Store
from spml_dist.records import Neighbours

RECENT = 2
"""steps that the paper's bank remembers; what more the whole bank covers is reported beside it"""

AGES = (10, 100, 1_000, 10_000)
"""bounds in steps between which the ages of rows are counted"""


class Statistics:
    """What is known of a bank since its last report."""

    def __init__(self) -> None:
        self.recall: dict[Kind, tuple[int, int]] = {}
        """rows that this rank's inverted file found, and rows to be found"""
        self._measured: dict[str, float] = {}

    def measure(
        self,
        store: Store,
        queries: Queries,
        labelled: tuple[Queries, Neighbours],
        eligible: Tensor,
        classes: int,
        step: int,
    ) -> None:
        """Measure what a step's segments find; a collective, the same on every rank.

        queries: the step's segments; labelled: some of them with their nearest annotated rows; eligible:
        [store.used] bool; step: counted from 0.
        """
        rows = store.written_rows()
        recent = eligible & (rows.step >= step - RECENT)
        ours = count(queries, torch.ones_like(queries.tags_known), queries, classes)
        of_recent, whole = (
            sum_over_ranks(count(rows, which, queries, classes)) for which in (recent, eligible)
        )
        self._measured = purity(*labelled) | coverage(queries, ours, of_recent, whole)

    def report(self, store: Store, kinds: Sequence[Kind], step: int) -> dict[str, float]:
        """Everything since the last report, by name, which is forgotten then; a collective.

        kinds: those whose recall any rank may have measured; step: steps done so far.
        """
        own = summed(store.drift, self.recall, kinds, store.alive.device)
        result = self._measured | own | ages(store.rows.step[store.live()], step - 1)
        store.drift, self.recall, self._measured = [], {}, {}
        return result


def purity(queries: Queries, labelled: Neighbours) -> dict[str, float]:
    """Share of the annotated segments' nearest annotated rows that have their class."""
    answered = (labelled.segment >= 0) & (queries.label >= 0)[:, None]
    same = answered & (labelled.label == queries.label[:, None])
    return {"purity": _ratio(same.sum(), answered.sum())} if answered.any() else {}


def coverage(queries: Queries, step: RowCounts, recent: RowCounts, whole: RowCounts) -> dict[str, float]:
    """Share of the segments that have a positive beside themselves and a negative, by relation: among this
    step's segments only, with the rows of the last two steps, and with the whole bank."""
    annotated, label = queries.label >= 0, queries.label.clamp(min=0).long()
    result: dict[str, float] = {}
    for among, more in (("step", None), ("recent", recent), ("bank", whole)):
        parts = [step] if more is None else [step, more]
        by_class, sharing, apart = (
            torch.stack([getattr(part, name) for part in parts]).sum(dim=0)
            for name in ("by_class", "sharing", "apart")
        )
        same = by_class[label] - 1  # beside the segment itself
        others = by_class.sum() - same - 1
        # An image that shares no tag with itself has none: its segments are not among those that share.
        itself = (queries.tags != 0).any(dim=1).long()
        result |= _share(f"coverage_annotation/{among}", (same > 0) & (others > 0), annotated)
        covered = (sharing > itself) & (apart > 0)
        result |= _share(f"coverage_cooccurrence/{among}", covered, queries.tags_known)
    return result


def ages(step: Tensor, now: int) -> dict[str, float]:
    """Ages of rows over all ranks in steps: their mean, and shares between bounds; a collective.

    step: [n] int32, when this rank's rows were written.
    """
    old = (now - step).double()
    bins = torch.bucketize(old, old.new_tensor(AGES, dtype=torch.float64), right=True)
    ours = torch.cat([old.sum()[None], torch.bincount(bins, minlength=len(AGES) + 1).double()])
    total, *shares = comm.sum_all(ours).tolist()
    rows = sum(shares)
    names = (*(f"age_share/below_{bound}" for bound in AGES), "age_share/older")
    if not rows:
        return {"rows": 0}
    return {
        "rows": rows,
        "age_mean": total / rows,
        **{n: s / rows for n, s in zip(names, shares, strict=True)},
    }


def summed(
    cosines: Sequence[float],
    recall: Mapping[Kind, tuple[int, int]],
    kinds: Sequence[Kind],
    device: torch.device,
) -> dict[str, float]:
    """Means over all ranks of what each has by itself; a collective. kinds: the same on every rank."""
    pairs = [(sum(cosines), len(cosines)), *(recall.get(kind, (0, 0)) for kind in kinds)]
    sums = comm.sum_all(torch.tensor(pairs, dtype=torch.float64, device=device)).tolist()
    names = ["drift_cosine", *(f"recall/{kind}" for kind in kinds)]
    return {name: part / whole for name, (part, whole) in zip(names, sums, strict=True) if whole}


def _share(name: str, covered: Tensor, among: Tensor) -> dict[str, float]:
    return {name: _ratio((covered & among).sum(), among.sum())} if among.any() else {}


def _ratio(part: Tensor, whole: Tensor) -> float:
    return (part.double() / whole).item()
