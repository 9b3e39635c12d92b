"""One unit vector for each segment."""

from __future__ import annotations

from torch import Tensor

from spml_dist.method.kmeans import unit


def prototypes(vectors: Tensor, segment: Tensor, count: int) -> Tensor:
    """μ_s = sum of the members' vectors ÷ its norm: [count, C]; an empty segment gives zeros.

    vectors: [n, C]; segment: [n] int64 in 0..count-1. Gradient reaches every member.
    """
    nothing = vectors.new_zeros(count, vectors.shape[1])
    if vectors.is_cuda:
        # Sorted by segment, so that sums have one order; index_add would add in another one each time.
        sums = nothing.index_put((segment,), vectors, accumulate=True)
    else:
        sums = nothing.index_add(0, segment, vectors)
    return unit(sums)
