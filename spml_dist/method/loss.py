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

from spml_dist.method import fused_loss
from spml_dist.method.loss_terms import pixel_terms, rounded
from spml_dist.records import Block, Contrast, Products, Relation

TILE = 1 << 21
"""entries of a tile (pixels × candidates) on a CPU; the four float32 tiles at work take 34 MB"""

SHARE = 1 / 32
"""of a GPU's memory that the four tiles at work may take there, where smaller ones wait for the host"""

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
    products: Products = "float32",
    fused: bool = True,
) -> Contrast:
    """Contrast pixels with candidate segments.

    embedding: [n, C] unit vectors; prototype: [P, C] unit vectors, the last `constants` of them without
    gradient (rows of a bank); own: [n] int64, candidate that is the pixel's own segment or -1;
    weights: [R] one for each relation of a block (every block has the same relations, in the same order);
    a relation of weight 0 is not computed; log_weight: [constants] float32, log of how many rows each of
    the last candidates stands for, or None where each stands for itself (an own segment always does);
    stands_for: [n] float, how many pixels each stands for, by which its loss is multiplied, or None;
    products: number format of the factors of large products, whose sums are float32; fused: whether a GPU
    takes the kernels of `fused_loss.py` where these fit, instead of tiles.

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
        products,
        fused,
    )
    return Contrast(loss, values, without)


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, embedding, prototype, own, blocks, weights, constants, log_weight, stands_for, products, fused
    ):
        values = embedding.new_zeros(len(weights))
        without = torch.zeros(len(weights), dtype=torch.int64, device=embedding.device)
        grads = None
        if any(ctx.needs_input_grad[:2]):
            grads = torch.zeros_like(embedding), torch.zeros_like(prototype, dtype=torch.float64)
        learning = len(prototype) - constants
        multiplicity = None if log_weight is None else pad(log_weight.to(prototype), (learning, 0)).exp()
        counted = multiplicity, stands_for
        kernels = fused and fused_loss.fits(embedding, len(weights))
        run = fused_loss.contrast_block if kernels else _block
        for block in blocks:
            run(
                embedding, prototype, own, block, weights, learning, counted, values, without, grads, products
            )
        if grads is not None:
            ctx.save_for_backward(grads[0], grads[1].to(prototype.dtype))
        ctx.mark_non_differentiable(values, without)
        return values @ values.new_tensor(weights), values, without

    @staticmethod
    def backward(ctx, grad_loss, *_):
        grad_embedding, grad_prototype = ctx.saved_tensors
        return grad_embedding * grad_loss, grad_prototype * grad_loss, *[None] * 8


def _block(
    embedding, prototype, own, block: Block, weights, learning, counted, values, without, grads, products
) -> None:
    """Run a block tile by tile; add to values, without and grads. counted: how many rows of a bank each
    candidate stands for, and how many pixels each pixel, both None where they stand for themselves."""
    multiplicity, of_pixels = counted
    first, last = block.columns.start, block.columns.stop
    embedding, candidates = rounded(embedding, products), rounded(prototype[first:last], products)
    width = last - first
    rows = range(block.rows.start, block.rows.stop)
    if not rows or not width:
        return
    height = max(16, min(len(rows), tile_entries(embedding.device) // width))
    # Every tile works in the same memory: tile-sized temporaries would cost more than the arithmetic.
    buffers = [embedding.new_empty(height * width) for _ in range(2 if grads is None else 4)]
    used = [r for r, weight in enumerate(weights) if weight]
    stands_for = None if multiplicity is None else multiplicity[first:last]
    sides = {r: _Side(block.relations[r], stands_for, embedding.dtype) for r in used}
    for start in range(rows.start, rows.stop, height):
        stop = min(start + height, rows.stop)
        tile = slice(start - rows.start, stop - rows.start)
        e = embedding[start:stop]
        similarity, *work = (b[: (stop - start) * width].view(stop - start, width) for b in buffers)
        torch.mm(e, candidates.T, out=similarity).sub_(1)
        grad = None if grads is None else work.pop().zero_()
        touched = False
        for r, side in sides.items():
            times = None if of_pixels is None else of_pixels[start:stop]
            scale = block.scale[r], weights[r]
            done = side.tile(tile, similarity, work, own[start:stop] - first, times, grad, *scale)
            if done is not None:
                values[r] += done[0]
                without[r] += done[1]
                touched = True
        if grad is not None and touched:
            grads[0][start:stop].addmm_(grad, candidates)
            if first < learning:
                inside = slice(first, min(last, learning))
                _accumulate(grads[1][inside], grad[:, : inside.stop - first], e)


def _waits(tensor: Tensor) -> bool:
    """Whether the host would have to wait for the device to read this, and launches cost more than sums."""
    return tensor.is_cuda


def tile_entries(device: torch.device) -> int:
    """Pixels × candidates of a tile: a CPU's cache, or a share of a GPU's memory."""
    if device.type != "cuda":
        return TILE
    return int(SHARE * torch.cuda.get_device_properties(device).total_memory) // (4 * 4)


def _accumulate(total: Tensor, weight: Tensor, vectors: Tensor) -> None:
    """total += weightᵀ @ vectors. A candidate's gradient sums terms of both signs over all pixels: float32
    within short runs and float64 across them keeps it as exact as its terms."""
    run = weight.new_empty(total.shape)
    if _waits(run):  # whose sums run side by side, and where launches cost more than their arithmetic
        total += torch.mm(weight.T, vectors, out=run)
        return
    for start in range(0, len(vectors), RUN):
        torch.mm(weight[start : start + RUN].T, vectors[start : start + RUN], out=run)
        total += run


class _Side:
    """One relation, seen from the tiles of a block."""

    def __init__(self, relation: Relation, stands_for: Tensor | None, dtype: torch.dtype):
        self.kappa = relation.concentration
        self.own_repels = relation.own_repels
        self.group = relation.group
        counts = relation.attracting
        counts = relation.attract.sum(dim=1) if counts is None else counts
        # A last group for the pixels that take no part: nothing attracts or repels them, and as something
        # elsewhere would, they have no loss and are not counted.
        self.attract, self.repel = pad(relation.attract, (0, 0, 0, 1)), pad(relation.repel, (0, 0, 0, 1))
        self.attracting = pad(counts, (0, 1), value=2)
        self.stands_for = stands_for
        self._everybody = None
        if _waits(self.group):
            # All groups at once, for all tiles: to know which ones a tile meets, the host would have to wait.
            groups = torch.arange(len(self.attracting), device=self.group.device)
            self._everybody = groups, self._masks(groups, dtype)
            self.local = torch.where(self.group < 0, len(relation.attract), self.group)
        else:
            self._dtype = dtype

    def _masks(self, groups: Tensor, dtype: torch.dtype) -> Tensor:
        """[2 × groups, P]: what attracts each group, then what repels it, by how much each stands for."""
        masks = torch.cat([self.attract[groups], self.repel[groups]]).to(dtype)
        return masks if self.stands_for is None else masks.mul_(self.stands_for)

    def _members(self, tile: slice):
        """Pixels of a tile that take part (None: all), their groups in it, the groups' numbers and masks;
        None where no pixel does."""
        if self._everybody is not None:
            return None, self.local[tile], *self._everybody
        group = self.group[tile]
        present = group >= 0
        if not present.any():
            return None
        # A tile meets few of the groups; only theirs become rows of the masks.
        groups, local = torch.unique(group[present], return_inverse=True)
        part = None if present.all() else present.nonzero()[:, 0]
        return part, local, groups, self._masks(groups, self._dtype)

    def tile(
        self, tile: slice, similarity, work, own, times, grad, scale, weight
    ) -> tuple[Tensor, Tensor] | None:
        """scale · loss summed over the tile and pixels without positive; adds weight · scale ·
        ∂loss/∂similarity to grad.

        similarity: [t, P] = e·μ - 1; work: two of [t, P], one if there is no gradient; own: [t] column of the
        own segment, outside 0..P-1 where there is none; times: [t, 1] pixels that each stands for, or None.
        None if no pixel of the tile takes part.
        """
        members = self._members(tile)
        if members is None:
            return None
        part, local, groups, masks = members
        of_rows = isinstance(scale, Tensor) and scale.dim() > 0
        if of_rows:
            scale = scale[tile, None] if part is None else scale[tile][part, None]
        if part is None:
            x = torch.mul(similarity, self.kappa, out=work[0])
        else:
            own = own[part]
            times = None if times is None else times[part]
            x = torch.index_select(similarity, 0, part, out=work[0][: len(part)]).mul_(self.kappa)
        x.exp_()  # exp(κ(e·μ - 1)): at most 1, so that no maximum over the candidates is needed
        has_own = ((own >= 0) & (own < x.shape[1])).unsqueeze(1)
        column = own.unsqueeze(1).clamp(0, x.shape[1] - 1)
        # The own segment leaves the tile entry by entry: taken off the sums instead, a pixel with few other
        # positives would be left with rounding.
        itself = x.gather(1, column) * has_own
        x.scatter_(1, column, x.gather(1, column) - itself)

        # All groups' sums by one thin product; a pixel then picks those of its own group.
        sums = x @ masks.T
        local = local.unsqueeze(1)
        half = len(masks) // 2
        positive, negative = sums.gather(1, local), sums.gather(1, local + half)
        named = groups[local]
        own_attracts = has_own & self.attract[named, column]
        own_repels = has_own & self.repel[named, column] if self.own_repels else torch.zeros_like(has_own)
        others = self.attracting[named] - own_attracts.long()
        terms = pixel_terms(
            positive, negative, itself, own_repels, others, times, self.kappa * (scale * weight)
        )

        if grad is not None:
            # A pixel's ∂loss/∂x is constant over a mask, so weights times masks give the whole tile: the
            # transpose of the thin product above.
            weight = x.new_zeros(len(x), len(masks))
            weight.scatter_(1, local, terms.positive)
            weight.scatter_(1, local + half, terms.negative)
            x.mul_(torch.mm(weight, masks, out=work[1][: len(x)]))
            x.scatter_add_(1, column, terms.own * itself)
            if part is None:
                grad.add_(x)
            else:
                grad.index_add_(0, part, x)
        loss = (scale * terms.loss).sum() if of_rows else scale * terms.loss.sum()
        return loss, terms.without.sum().round().long()
