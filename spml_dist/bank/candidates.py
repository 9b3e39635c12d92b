"""Which of the bank's rows join a step's candidates, and how many rows each stands for.

A function of the global batch: every rank chooses among its own rows, and all get the same candidates in the
same order, whichever rank has which rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.bank import exchange, sampling
from spml_dist.bank.counts import RowCounts, sum_over_ranks
from spml_dist.bank.rows import ANNOTATED, as_candidates, by_identity, pack, unpack
from spml_dist.bank.store import Store
from spml_dist.config.method_models import BankConfig
from spml_dist.records import BankCandidates, BankCounts, BankRows, Neighbours
from spml_dist.tensor_records import concatenate, take


def choose(
    store: Store,
    settings: BankConfig,
    classes: int,
    dtype: torch.dtype,
    neighbours: Sequence[Neighbours],
    eligible: Tensor,
    counts: RowCounts,
    seed: int,
    step: int,
) -> BankCandidates:
    """The bank's candidates for a step; a collective.

    dtype: of the step's prototypes; neighbours: the rows that were looked up for its segments, over all
    ranks; eligible: [store.used] bool, this rank's rows that may become candidates; counts: of them; seed,
    step: of the draw.
    """
    none = eligible.nonzero()[:0, 0]
    if settings.candidates == "exact":
        every_row, _ = _gathered(store, classes, settings, eligible.nonzero()[:, 0], none)
        return BankCandidates(as_candidates(every_row, classes, dtype))
    image, segment = sampling.union_of_neighbours(neighbours, settings.max_candidates)
    nearest = sampling.slots_of_rows(store, image, segment).to(none.device)
    if settings.candidates == "nearest":
        rows, _ = _gathered(store, classes, settings, nearest, none)
        return BankCandidates(as_candidates(rows, classes, dtype))
    whole = sum_over_ranks(counts)
    # The nearest are sure to be candidates and stand for themselves; what is drawn stands for the rest. Drawn
    # as well, a row would count twice.
    left = eligible.clone()
    left[nearest] = False
    near_annotated = comm.sum_all(torch.count_nonzero(store.rows.source[nearest] == ANNOTATED))
    # What all ranks have left to draw from, of either kind: counted, since no rank sees the others' rows.
    annotated, every = torch.cat([whole.by_class.sum()[None] - near_annotated, whole.rows]).tolist()
    others = every - len(image) - annotated
    probability = sampling.draw_probabilities(annotated, others, settings.sampled)
    drawn = sampling.draw_rows(store, left.nonzero()[:, 0], probability, seed, step)
    rows, count_drawn = _gathered(store, classes, settings, nearest, drawn)
    weight = sampling.row_weights(rows.source, len(rows) - count_drawn, annotated, others)
    counted = BankCounts(whole.by_class, whole.by_propagated, whole.sharing)
    return BankCandidates(as_candidates(rows, classes, dtype), weight.log(), counted)


def _gathered(
    store: Store, classes: int, settings: BankConfig, nearest: Tensor, drawn: Tensor
) -> tuple[BankRows, int]:
    """The nearest rows of all ranks, then the drawn ones and how many these are, each by identity.

    nearest, drawn: slots of this rank. Both travel in one message, a byte a row tells them apart.
    """
    own = pack(take(store.rows, torch.cat([nearest, drawn])))
    which = torch.zeros(len(own), 1, dtype=torch.uint8, device=own.device)
    which[len(nearest) :] = 1
    packed = exchange.of_all_ranks(torch.cat([own, which], dim=1))
    dim = store.rows.vector.shape[1]
    parts = [
        by_identity(unpack(packed[packed[:, -1] == part], dim, classes, settings.storage)) for part in (0, 1)
    ]
    return concatenate(parts), len(parts[1])
