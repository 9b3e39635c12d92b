"""One unit vector for each segment."""

from __future__ import annotations

from torch import Tensor

from spml_dist.method.kmeans import unit


def prototypes(vectors: Tensor, segment: Tensor, count: int) -> Tensor:
    """μ_s = sum of the members' vectors ÷ its norm: [count, C]; an empty segment gives zeros.

    vectors: [n, C]; segment: [n] int64 in 0..count-1. Gradient reaches every member.
    """
    sums = vectors.new_zeros(count, vectors.shape[1]).index_add(0, segment, vectors)
    return unit(sums)
