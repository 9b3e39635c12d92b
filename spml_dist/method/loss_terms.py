"""What a pixel's loss is, once the sums over its candidates are known, and what each of these weighs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spml_dist.records import Products


@dataclass(frozen=True)
class Terms:
    """Of some pixels in one relation; all of the same shape."""

    loss: Tensor
    without: Tensor
    """1 (or how many pixels each stands for) where a pixel fell back to its own segment, else 0"""
    positive: Tensor
    """∂loss/∂similarity of a candidate that attracts ÷ its exponential; so the other two"""
    negative: Tensor
    own: Tensor
    """of the own segment, for what it counts beside the masks"""


def pixel_terms(
    positive: Tensor,
    negative: Tensor,
    itself: Tensor,
    own_repels: Tensor,
    others: Tensor,
    times: Tensor | None,
    factor: Tensor | float,
) -> Terms:
    """Equation 2 and its derivative.

    positive, negative: sums over what attracts and repels, without the own segment; itself: its
    exponential, 0 where there is none; own_repels: bool, whether it counts among what repels; others: int64,
    how many other segments attract; times: how many pixels each stands for, or None; factor: κ · weight ·
    scale.
    """
    alone = others == 0
    negative = negative + own_repels * itself
    numerator = torch.where(alone, itself, positive)
    total = numerator + negative
    # Without any candidate for the numerator, a pixel has no loss.
    defined = numerator > 0
    numerator, total = torch.where(defined, numerator, 1), torch.where(defined, total, 1)
    loss, without = total.log() - numerator.log(), alone
    if times is not None:
        loss, without, factor = loss * times, alone * times, factor * times
    d_negative = defined / total * factor
    d_numerator = -d_negative * torch.where(defined, negative, 0) / numerator
    d_own = alone * d_numerator + own_repels * d_negative
    return Terms(loss, without, torch.where(alone, 0, d_numerator), d_negative, d_own)


def rounded(vectors: Tensor, products: Products) -> Tensor:
    """Vectors as a product in that format takes them, in their own."""
    return vectors.bfloat16().to(vectors.dtype) if products == "bfloat16" else vectors
