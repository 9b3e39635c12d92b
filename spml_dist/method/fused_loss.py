"""The contrastive loss of a block in three kernels on a GPU; `loss.py` says what is computed, and is the
referee.

The kernels run as operations of torch, so that whoever follows these (a profiler, a counter, fake tensors)
sees one each, with its shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from math import isclose

import torch
from torch import Tensor

from spml_dist.method.loss_terms import Terms, pixel_terms, rounded
from spml_dist.records import Block, Products

M, N = 64, 64
"""pixels and candidates of a tile"""
WIDEST = 128
"""dimensions of a vector, with which a tile takes up to 150 kB of a multiprocessor's memory"""
MOST = 3
"""relations of a block"""
PROGRAMS = 528
"""of a kernel that keep a GPU of 132 multiprocessors busy"""


def fits(embedding: Tensor, relations: int) -> bool:
    """Whether the kernels take vectors like these, and so many relations."""
    on_gpu = embedding.is_cuda and embedding.dtype == torch.float32 and find_spec("triton") is not None
    return on_gpu and embedding.shape[1] <= WIDEST and relations <= MOST


def contrast_block(
    embedding: Tensor,
    prototype: Tensor,
    own: Tensor,
    block: Block,
    weights: Sequence[float],
    learning: int,
    counted: tuple[Tensor | None, Tensor | None],
    values: Tensor,
    without: Tensor,
    grads: tuple[Tensor, Tensor] | None,
    products: Products,
) -> None:
    """As `loss._block`: add a block's loss to values and without, and its gradients to grads."""
    rows, columns = block.rows, block.columns
    used = [r for r, weight in enumerate(weights) if weight]
    e, p = (rounded(each.detach(), products).contiguous() for each in (embedding[rows], prototype[columns]))
    if not used or not len(e) or not len(p):
        return
    multiplicity, of_pixels = counted
    own = own[rows] - columns.start
    own = torch.where((own >= 0) & (own < len(p)), own, -1).int()
    relations = [block.relations[r] for r in used]
    codes, group = _coded(relations)
    stands_for = p.new_ones(len(p)) if multiplicity is None else multiplicity[columns].to(p)
    kappas = [relation.concentration for relation in relations]
    of_columns, of_rows = block.ranges or (None, None)
    shared = (e, p, own, codes, group, stands_for)
    sums = torch.ops.spml_dist.contrast_sums(*shared, of_columns, kappas, precision(products, e))
    terms: list[Terms] = []
    times = None if of_pixels is None else of_pixels[rows, 0]
    for number, (r, relation) in enumerate(zip(used, relations, strict=True)):
        scale = block.scale[r]
        own_attracts, own_repels = _of_own(codes, group[number], own, relation.own_repels)
        others = _attracting(relation)[torch.where(relation.group < 0, len(relation.attract), relation.group)]
        positive, negative, itself = sums[number]
        term = pixel_terms(
            positive,
            negative,
            itself,
            own_repels,
            others - own_attracts,
            times,
            scale * weights[r] * relation.concentration,
        )
        values[r] += (scale * term.loss).sum()
        without[r] += term.without.sum().round().long()
        terms.append(term)
    if grads is None:
        return
    of_sums = torch.stack([torch.stack([t.positive, t.negative, t.own]) for t in terms]).to(e)
    first = max(0, min(columns.stop, learning) - columns.start)
    of_pixels_, of_candidates = torch.ops.spml_dist.contrast_gradients(
        *shared, of_columns, of_rows, kappas, of_sums, first, precision(products, e)
    )
    grads[0][rows] += of_pixels_
    grads[1][columns.start : columns.start + first] += of_candidates.sum(dim=0, dtype=torch.float64)


def precision(products: Products, vectors: Tensor) -> str:
    """How the kernels multiply: as torch does on this GPU, float32 from three products of TF32 unless one is
    allowed to do."""
    if products == "bfloat16":
        return "bfloat16" if vectors.is_cuda else "rounded"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def _coded(relations) -> tuple[Tensor, Tensor]:
    """codes: [G, P] uint8 of all relations' groups, and a last row of zeros for pixels without one; group:
    [R, n] int32 rows of it."""
    codes = [r.attract.to(torch.uint8) + 2 * r.repel.to(torch.uint8) for r in relations]
    nobody = sum(len(code) for code in codes)
    groups, first = [], 0
    for relation, code in zip(relations, codes, strict=True):
        groups.append(torch.where(relation.group < 0, nobody, relation.group + first))
        first += len(code)
    return torch.cat([*codes, codes[0].new_zeros(1, codes[0].shape[1])]), torch.stack(groups).int()


def _of_own(codes: Tensor, group: Tensor, own: Tensor, repels: bool) -> tuple[Tensor, Tensor]:
    """[n] int64 and bool: whether the own segment attracts a pixel, and whether it counts among those that
    repel it."""
    code = torch.where(own >= 0, codes[group.long(), own.clamp(min=0).long()], 0)
    return (code & 1).long(), (code & 2 > 0) if repels else torch.zeros_like(own, dtype=torch.bool)


def _attracting(relation) -> Tensor:
    """[G + 1] how many attract each group; of pixels that take no part something does, so that they do not
    fall back to their own segment."""
    counts = relation.attract.sum(dim=1) if relation.attracting is None else relation.attracting
    return torch.cat([counts, counts.new_full((1,), 2)])


@torch.library.custom_op("spml_dist::contrast_sums", mutates_args=())
def _sums(
    embedding: Tensor,
    prototype: Tensor,
    own: Tensor,
    codes: Tensor,
    group: Tensor,
    stands_for: Tensor,
    columns_of: Tensor | None,
    kappas: Sequence[float],
    precision: str,
) -> Tensor:
    """[R, 3, n] float32 sums of each relation; see `fused_kernels.sums`."""
    from spml_dist.method import fused_kernels

    n, dim = embedding.shape
    out = embedding.new_empty(len(kappas), 3, n)
    fused_kernels.sums[(-(-n // M),)](
        embedding, prototype, own, codes, group, stands_for,
        own if columns_of is None else columns_of, *_three(kappas), out, n, len(prototype),
        **constants(kappas, columns_of, precision, dim),
    )  # fmt: skip
    return out


@_sums.register_fake
def _(embedding, prototype, own, codes, group, stands_for, columns_of, kappas, precision):
    return embedding.new_empty(len(kappas), 3, len(embedding))


@torch.library.custom_op("spml_dist::contrast_gradients", mutates_args=())
def _gradients(
    embedding: Tensor,
    prototype: Tensor,
    own: Tensor,
    codes: Tensor,
    group: Tensor,
    stands_for: Tensor,
    columns_of: Tensor | None,
    rows_of: Tensor | None,
    kappas: Sequence[float],
    weights: Tensor,
    learning: int,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """Gradients [n, C] of the pixels, and [parts, learning, C] of the first candidates, to be added up."""
    from spml_dist.method import fused_kernels

    n, dim = embedding.shape
    to_pixels = torch.empty_like(embedding)
    to_prototypes = embedding.new_empty(parts(n, learning), learning, dim)
    shared = (embedding, prototype, own, codes, group, stands_for)
    fused_kernels.to_pixels[(-(-n // M),)](
        *shared, own if columns_of is None else columns_of, *_three(kappas), weights, to_pixels,
        n, len(prototype), **constants(kappas, columns_of, precision, dim),
    )  # fmt: skip
    if learning:
        part = -(-n // (M * len(to_prototypes))) * M
        fused_kernels.to_prototypes[(-(-learning // N), len(to_prototypes))](
            *shared, own if rows_of is None else rows_of, *_three(kappas), weights, to_prototypes,
            n, len(prototype), learning, part, **constants(kappas, rows_of, precision, dim),
        )  # fmt: skip
    return to_pixels, to_prototypes


@_gradients.register_fake
def _(
    embedding,
    prototype,
    own,
    codes,
    group,
    stands_for,
    columns_of,
    rows_of,
    kappas,
    weights,
    learning,
    precision,
):
    shape = parts(len(embedding), learning), learning, embedding.shape[1]
    return torch.empty_like(embedding), embedding.new_empty(shape)


def parts(pixels: int, learning: int) -> int:
    """Into how many parts the pixels are cut for the candidates' gradient, so that there are programs for a
    whole GPU where there are few candidates."""
    of_candidates = max(1, -(-learning // N))
    return max(1, min(PROGRAMS // of_candidates, -(-pixels // (16 * M))))


def _three(kappas: Sequence[float]) -> list[float]:
    return [*kappas, *[1.0] * (MOST - len(kappas))]


def constants(kappas: Sequence[float], ranges: Tensor | None, precision: str, dim: int) -> dict:
    how = [_how(before, after) for before, after in pairwise(kappas)]
    how += [0] * (MOST - 1 - len(how))
    return {
        "R": len(kappas),
        "HOW1": how[0],
        "HOW2": how[1],
        "RANGES": ranges is not None,
        "PRECISION": precision,
        "DIM": dim,
        "D": max(16, 1 << (dim - 1).bit_length()),
        "M": M,
        "N": N,
        "num_stages": 3 if dim <= 64 else 2,
    }


def _how(before: float, after: float) -> int:
    """How a relation's exponentials follow from the one's before: 1 the same, 2 their squares, 0 anew."""
    return 1 if isclose(before, after) else 2 if isclose(2 * before, after) else 0
