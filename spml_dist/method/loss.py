"""The pixel-to-segment contrastive loss (SPML, equation 2), tiled.

For pixel i with unit vector e_i, own segment s(i) and similarity S_it = exp(κ e_i·μ_t):

    pos_i  = Σ S_it over the candidates that attract i, s(i) left out
    neg_i  = Σ S_it over the candidates that repel i, s(i) left out
    loss_i = -log(N_i / (N_i + neg_i)),   N_i = pos_i, or S_i,s(i) when nothing else attracts i

A candidate that stands for m_t rows of a bank adds m_t S_it to these sums. The own segment is left out by
mask, never by subtraction, and whether anything else attracts a pixel is counted, not read off a sum.
Unit vectors bound the logits, so exp(κ(s - 1)) needs no maximum.

Nothing of size pixels × candidates is stored. Every denominator is known before the first tile, so
the gradient of a tile is made while its similarities are at hand: one product for the similarities, one
thin product per relation and direction, and two products for the gradients. Making it in a backward
pass would repeat the similarities and their exponentials. The m_t enter through the masks of those thin
products, so that no entry of a tile is touched for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from spml_dist.records import Block, Contrast, Relation

TILE = 1 << 21
"""entries of a tile (pixels × candidates); the four float32 tiles at work take 34 MB"""

RUN = 256
"""pixels whose gradient to a candidate is summed in float32"""


def contrast(
    embedding: Tensor,
    prototype: Tensor,
    own: Tensor,
    blocks: Sequence[Block],
    weights: Sequence[float],
    constants: int = 0,
    log_weight: Tensor | None = None,
    stands_for: Tensor | None = None,
) -> Contrast:
    """Contrast pixels with candidate segments.

    embedding: [n, C] unit vectors; prototype: [P, C] unit vectors, the last `constants` of them without
    gradient (rows of a bank); own: [n] int64, candidate that is the pixel's own segment or -1;
    weights: [R] one for each relation of a block (every block has the same relations, in the same order);
    a relation of weight 0 is not computed; log_weight: [constants] float32, log of how many rows each of the
    last candidates stands for, or None where each stands for itself (an own segment always does);
    stands_for: [n] float, how many pixels each stands for, by which its loss is multiplied, or None.

    A pixel that nothing but its own segment attracts falls back to it, or has no loss where it has none
    either, and is counted. Where Relation.attracting says that others attract it but none of them is among
    the candidates, it has no loss in this step: no fallback, no gradient, and it is not counted.
    Computed in float32 whatever the inputs' type (float64 stays float64).
    """
    dtype = torch.promote_types(embedding.dtype, torch.float32)
    loss, values, without = _Contrast.apply(
        embedding.to(dtype),
        prototype.to(dtype),
        own,
        tuple(blocks),
        tuple(weights),
        constants,
        log_weight,
        None if stands_for is None else stands_for.to(dtype)[:, None],
    )
    return Contrast(loss, values, without)


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embedding, prototype, own, blocks, weights, constants, log_weight, stands_for):
        values = embedding.new_zeros(len(weights))
        without = torch.zeros(len(weights), dtype=torch.int64, device=embedding.device)
        grads = None
        if any(ctx.needs_input_grad[:2]):
            grads = torch.zeros_like(embedding), torch.zeros_like(prototype, dtype=torch.float64)
        learning = len(prototype) - constants
        multiplicity = None if log_weight is None else pad(log_weight.to(prototype), (learning, 0)).exp()
        counted = multiplicity, stands_for
        for block in blocks:
            _block(embedding, prototype, own, block, weights, learning, counted, values, without, grads)
        if grads is not None:
            ctx.save_for_backward(grads[0], grads[1].to(prototype.dtype))
        ctx.mark_non_differentiable(values, without)
        return values @ values.new_tensor(weights), values, without

    @staticmethod
    def backward(ctx, grad_loss, *_):
        grad_embedding, grad_prototype = ctx.saved_tensors
        return grad_embedding * grad_loss, grad_prototype * grad_loss, None, None, None, None, None, None


def _block(
    embedding, prototype, own, block: Block, weights, learning, counted, values, without, grads
) -> None:
    """Run a block tile by tile; add to values, without and grads. counted: how many rows of a bank each
    candidate stands for, and how many pixels each pixel, both None where they stand for themselves."""
    multiplicity, of_pixels = counted
    first, last = block.columns.start, block.columns.stop
    candidates = prototype[first:last]
    width = last - first
    rows = range(block.rows.start, block.rows.stop)
    if not rows or not width:
        return
    height = max(16, min(len(rows), TILE // width))
    # Every tile works in the same memory: tile-sized temporaries would cost more than the arithmetic.
    buffers = [embedding.new_empty(height * width) for _ in range(2 if grads is None else 4)]
    used = [r for r, weight in enumerate(weights) if weight]
    stands_for = None if multiplicity is None else multiplicity[first:last]
    sides = {r: _Side(block.relations[r], stands_for) for r in used}
    for start in range(rows.start, rows.stop, height):
        stop = min(start + height, rows.stop)
        tile = slice(start - rows.start, stop - rows.start)
        e = embedding[start:stop]
        similarity, *work = (b[: (stop - start) * width].view(stop - start, width) for b in buffers)
        torch.mm(e, candidates.T, out=similarity).sub_(1)
        grad = None if grads is None else work.pop().zero_()
        touched = False
        for r, side in sides.items():
            scale = block.scale[r] * weights[r]
            times = None if of_pixels is None else of_pixels[start:stop]
            done = side.tile(tile, similarity, work, own[start:stop] - first, times, grad, scale)
            if done is not None:
                values[r] += block.scale[r] * done[0]
                without[r] += done[1]
                touched = True
        if grad is not None and touched:
            grads[0][start:stop].addmm_(grad, candidates)
            if first < learning:
                inside = slice(first, min(last, learning))
                _accumulate(grads[1][inside], grad[:, : inside.stop - first], e)


def _accumulate(total: Tensor, weight: Tensor, vectors: Tensor) -> None:
    """total += weightᵀ @ vectors. A candidate's gradient sums terms of both signs over all pixels: float32
    within short runs and float64 across them keeps it as exact as its terms."""
    run = weight.new_empty(total.shape)
    for start in range(0, len(vectors), RUN):
        torch.mm(weight[start : start + RUN].T, vectors[start : start + RUN], out=run)
        total += run


class _Side:
    """One relation, seen from the tiles of a block."""

    def __init__(self, relation: Relation, stands_for: Tensor | None):
        self.kappa = relation.concentration
        self.own_repels = relation.own_repels
        self.group = relation.group
        self.group_on_host = relation.group.cpu()
        self.attract = relation.attract
        self.repel = relation.repel
        counts = relation.attracting
        self.attracting = relation.attract.sum(dim=1) if counts is None else counts
        self.stands_for = stands_for

    def tile(self, tile: slice, similarity, work, own, times, grad, scale) -> tuple[Tensor, Tensor] | None:
        """Loss summed over the tile and pixels without positive; adds scale · ∂loss/∂similarity to grad.

        similarity: [t, P] = e·μ - 1; work: two of [t, P], one if there is no gradient; own: [t] column of the
        own segment, outside 0..P-1 where there is none; times: [t, 1] pixels that each stands for, or None.
        None if no pixel of the tile takes part.
        """
        on_host = self.group_on_host[tile]
        present = on_host >= 0
        if not present.any():
            return None
        # A tile meets few of the groups; only theirs become rows of the masks.
        groups, local = torch.unique(on_host[present], return_inverse=True)
        groups, local = groups.to(similarity.device), local.to(similarity.device)
        part = None if present.all() else present.nonzero()[:, 0].to(similarity.device)

        if part is None:
            x = torch.mul(similarity, self.kappa, out=work[0])
        else:
            own = own[part]
            times = None if times is None else times[part]
            x = torch.index_select(similarity, 0, part, out=work[0][: len(part)]).mul_(self.kappa)
        x.exp_()  # exp(κ(e·μ - 1)): at most 1, so that no maximum over the candidates is needed
        attract, repel = self.attract[groups], self.repel[groups]
        has_own = ((own >= 0) & (own < x.shape[1])).unsqueeze(1)
        column = own.unsqueeze(1).clamp(0, x.shape[1] - 1)
        # The own segment leaves the tile entry by entry: taken off the sums instead, a pixel with few other
        # positives would be left with rounding.
        itself = x.gather(1, column) * has_own
        x.scatter_(1, column, x.gather(1, column) - itself)

        masks = torch.cat([attract, repel]).to(x.dtype)
        if self.stands_for is not None:
            masks *= self.stands_for
        # All groups' sums by one thin product; a pixel then picks those of its own group.
        sums = x @ masks.T
        local = local.unsqueeze(1)
        positive, negative = sums.gather(1, local), sums.gather(1, local + len(groups))
        own_attracts = has_own & attract[local, column]
        others = self.attracting[groups][local] - own_attracts.long()
        alone = others == 0
        counted = (has_own & repel[local, column]) if self.own_repels else torch.zeros_like(alone)
        negative = negative + counted * itself
        numerator = torch.where(alone, itself, positive)
        total = numerator + negative
        # Without any candidate for the numerator, a pixel has no loss.
        defined = numerator > 0
        numerator, total = torch.where(defined, numerator, 1), torch.where(defined, total, 1)
        loss, without = total.log() - numerator.log(), alone
        if times is not None:
            loss, without, scale = loss * times, alone * times, scale * times

        if grad is not None:
            d_negative = defined / total * (self.kappa * scale)
            d_numerator = -d_negative * torch.where(defined, negative, 0) / numerator
            # A pixel's ∂loss/∂x is constant over a mask, so weights times masks give the whole tile: the
            # transpose of the thin product above.
            weight = x.new_zeros(len(x), len(masks))
            weight.scatter_(1, local, torch.where(alone, 0, d_numerator))
            weight.scatter_(1, local + len(groups), d_negative)
            x.mul_(torch.mm(weight, masks, out=work[1][: len(x)]))
            x.scatter_add_(1, column, (alone * d_numerator + counted * d_negative) * itself)
            if part is None:
                grad.add_(x)
            else:
                grad.index_add_(0, part, x)
        return loss.sum(), without.sum().round().long()
