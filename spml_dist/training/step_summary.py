"""A logged step in numbers, over all ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from spml_dist import comm
from spml_dist.config import Config
from spml_dist.method.step import RELATIONS, TERMS, StepLosses


def summary(micro_batches: Sequence[StepLosses], config: Config) -> dict[str, float]:
    """Loss, its terms and what they are made of; a collective. micro_batches: this rank's.

    Values are means over the micro-batches; counts of pixels are sums.
    """
    ours = torch.stack(
        [
            torch.cat([p.values, p.without_positive.to(p.values), p.values.new_tensor([p.pixels])])
            for p in micro_batches
        ]
    )
    everywhere = comm.sum_all(ours.double().sum(dim=0)).tolist()
    # A global term is a rank's share of one mean, to be added up; a per_rank one is a mean of its own.
    share = len(micro_batches) * (comm.world() if config.loss.reduction == "per_rank" else 1)
    used = [term for term in TERMS if weight(config, term)]
    terms = {term: everywhere[TERMS.index(term)] / share for term in used}
    without = {term: everywhere[len(TERMS) + RELATIONS.index(term)] for term in used if term in RELATIONS}
    return {
        "loss": sum(weight(config, term) * value for term, value in terms.items()),
        **{f"loss/{term}": value for term, value in terms.items()},
        "pixels": everywhere[-1],
        "pixels_without_positive": sum(without.values()),
        **{f"without_positive/{term}": count for term, count in without.items()},
        "candidates": micro_batches[-1].candidates,
    }


def weight(config: Config, term: str) -> float:
    """λ of a term."""
    return config.loss.cross_entropy if term == "cross_entropy" else getattr(config.relations, term).weight
