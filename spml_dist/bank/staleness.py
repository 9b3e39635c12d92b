"""How old the bank's rows are, how far the network has moved away from them, and what they still add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.bank.counts import Counts
from spml_dist.bank.search.filters import Queries
from spml_dist.records import BankRows, Neighbours

OVERLAP = 0.5
"""intersection over union of two boxes that are taken for one place of the image"""

AGES = (10, 100, 1_000, 10_000)
"""bounds in steps between which the ages of rows are counted"""


class Placed(NamedTuple):
    """Of rows, what says how far they moved."""

    vector: Tensor
    """[n, C] unit vectors"""
    box: Tensor
    """[n, 4] in shares of the image's sides"""


def drift(old: Placed | BankRows, new: Placed | BankRows) -> list[float]:
    """Cosines of new segments with the old ones in the same place of the same image.

    Crops differ from visit to visit and with them the segments: a new one is compared with the old one whose
    box overlaps most, if that is at least half of what both cover.
    """
    if not len(old.box) or not len(new.box):
        return []
    overlap, partner = _overlaps(new.box.float(), old.box.float()).max(dim=1)
    same = overlap >= OVERLAP
    return (new.vector[same].float() * old.vector[partner[same]].float()).sum(dim=1).tolist()


def purity(queries: Queries, labelled: Neighbours) -> dict[str, float]:
    """Share of the annotated segments' nearest annotated rows that have their class."""
    met = (labelled.segment >= 0) & (queries.label >= 0)[:, None]
    same = met & (labelled.label == queries.label[:, None])
    return {"purity": _ratio(same.sum(), met.sum())} if met.any() else {}


def coverage(queries: Queries, step: Counts, recent: Counts, whole: Counts) -> dict[str, float]:
    """Share of the segments that have a positive beside themselves and a negative, by relation: among this
    step's segments only, with the rows of the last two steps, and with the whole bank."""
    annotated, label = queries.label >= 0, queries.label.clamp(min=0).long()
    result = {}
    for name, more in (("step", None), ("recent", recent), ("bank", whole)):
        parts = [step] if more is None else [step, more]
        same = sum(part.by_class[label] for part in parts) - 1
        others = sum(part.by_class.sum() for part in parts) - same - 1
        sharing = sum(part.sharing for part in parts)
        apart = sum(part.apart for part in parts)
        # An image that shares no tag with itself has none: its segments are not among those that share.
        itself = (queries.tags != 0).any(dim=1).long()
        result |= _share(f"coverage_annotation/{name}", (same > 0) & (others > 0), annotated)
        covered = (sharing > itself) & (apart > 0)
        result |= _share(f"coverage_cooccurrence/{name}", covered, queries.tags_known)
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
    cosines: Sequence[float], recall: Mapping[str, tuple[int, int]], kinds: Sequence[str], device
) -> dict[str, float]:
    """Means over all ranks of what each saw by itself; a collective. kinds: the same on every rank."""
    pairs = [(sum(cosines), len(cosines)), *(recall.get(kind, (0, 0)) for kind in kinds)]
    seen = comm.sum_all(torch.tensor(pairs, dtype=torch.float64, device=device)).tolist()
    names = ["drift_cosine", *(f"recall/{kind}" for kind in kinds)]
    return {name: part / whole for name, (part, whole) in zip(names, seen, strict=True) if whole}


def _share(name: str, covered: Tensor, among: Tensor) -> dict[str, float]:
    return {name: _ratio((covered & among).sum(), among.sum())} if among.any() else {}


def _ratio(part: Tensor, whole: Tensor) -> float:
    return (part.double() / whole).item()


def _overlaps(ours: Tensor, theirs: Tensor) -> Tensor:
    """[n, m] intersection over union of boxes (top, left, bottom, right)."""
    top_left = torch.maximum(ours[:, None, :2], theirs[None, :, :2])
    bottom_right = torch.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    shared = _area((bottom_right - top_left).clamp_(min=0))
    own, other = (_area(box[:, 2:] - box[:, :2]) for box in (ours, theirs))
    return shared / (own[:, None] + other[None, :] - shared).clamp_(min=1e-12)


def _area(sides: Tensor) -> Tensor:
    return sides[..., 0] * sides[..., 1]
