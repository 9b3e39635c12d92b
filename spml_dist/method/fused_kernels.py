"""Triton kernels of the contrastive loss: what `loss.py` computes tile by tile, without storing a tile.

A program holds a block of pixels (or of candidates) and goes through the candidates (or pixels) that may
matter to it. Similarities and exponentials are made anew in each of the three kernels, because reading them
from memory would take longer. Relations come as codes: bit 0 of codes[g, t] says that candidate t attracts
the pixels of group g, bit 1 that it repels them. Nothing is added by atomics, so that sums have one order.
"""

import triton
import triton.language as tl

SIZES = ("pixels", "candidates", "learning", "part")
"""arguments for which no kernel of its own is compiled: they change with every step"""


@triton.jit
def _vectors(pointer, rows, columns, count, DIM: tl.constexpr):
    """A block of vectors, zeros beyond the last one and beyond their dimensions."""
    inside = (rows < count)[:, None] & (columns < DIM)[None, :]
    return tl.load(pointer + rows[:, None].to(tl.int64) * DIM + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _product(a, b, PRECISION: tl.constexpr):
    if PRECISION == "bfloat16":
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16))
    elif PRECISION == "rounded":  # the same numbers where no unit multiplies bfloat16: in the interpreter
        return tl.dot(a.to(tl.bfloat16).to(tl.float32), b.to(tl.bfloat16).to(tl.float32))
    else:
        return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def _exponentials(similarity, kappa, before, HOW: tl.constexpr):
    """exp(κ(e·μ - 1)), from the relation's before where their concentrations allow it."""
    # An exponential takes the lanes several instructions, a square one: relations of one concentration, or of
    # half of it, come in this order (see `fused_loss.constants`).
    if HOW == 1:
        return before
    elif HOW == 2:
        return before * before
    else:
        return tl.exp2((similarity - 1.0) * (kappa * 1.4426950408889634))


@triton.jit
def _codes(codes, group, columns, rows_in, columns_in, candidates):
    """[m, n] codes of a block of pixels and candidates."""
    place = group[:, None].to(tl.int64) * candidates + columns[None, :]
    return tl.load(codes + place, mask=rows_in[:, None] & columns_in[None, :], other=0)


@triton.jit
def _sums(x, code, itself, stands_for):
    """[m] sums over what attracts, over what repels, and the own segment's entry."""
    own = tl.sum(tl.where(itself, x, 0.0), axis=1)
    x = tl.where(itself, 0.0, x * stands_for[None, :])
    positive = tl.sum(tl.where((code & 1) != 0, x, 0.0), axis=1)
    return positive, tl.sum(tl.where((code & 2) != 0, x, 0.0), axis=1), own


@triton.jit
def _gradient(x, code, itself, stands_for, positive, negative, own):
    """[m, n] of ∂loss/∂similarity, from a pixel's weights for what attracts, what repels, itself."""
    of_others = tl.where((code & 1) != 0, positive[:, None], 0.0)
    of_others += tl.where((code & 2) != 0, negative[:, None], 0.0)
    return x * tl.where(itself, own[:, None], of_others * stands_for[None, :])


@triton.jit
def _span(ranges, members, inside, count, TILE: tl.constexpr, RANGES: tl.constexpr):
    """From where to where the tiles of a block go: over all `count` others, or over what the ranges of its
    members name together. From the start of a tile, as without ranges: sums keep their order."""
    first, last = count * 0, count
    if RANGES:
        first = tl.min(tl.load(ranges + 2 * members, mask=inside, other=count), axis=0) // TILE * TILE
        last = tl.max(tl.load(ranges + 2 * members + 1, mask=inside, other=0), axis=0)
    return first, last


@triton.jit
def _store_sums(pointer, relation, rows, pixels, positive, negative, own):
    """The three sums of a block of pixels in a relation, where `_weights` finds theirs."""
    inside, first = rows < pixels, pointer + relation * 3 * pixels.to(tl.int64) + rows
    tl.store(first, positive, mask=inside)
    tl.store(first + pixels, negative, mask=inside)
    tl.store(first + 2 * pixels.to(tl.int64), own, mask=inside)


@triton.jit
def _weights(pointer, relation, rows, pixels):
    """The three weights of a block of pixels in a relation; weights: [R, 3, n]."""
    inside, first = rows < pixels, pointer + relation * 3 * pixels.to(tl.int64) + rows
    positive = tl.load(first, mask=inside, other=0.0)
    negative = tl.load(first + pixels, mask=inside, other=0.0)
    return positive, negative, tl.load(first + 2 * pixels.to(tl.int64), mask=inside, other=0.0)


@triton.jit(do_not_specialize=SIZES)
def sums(
    embedding,
    prototype,
    own,
    codes,
    group,
    stands_for,
    columns_of,
    kappa0,
    kappa1,
    kappa2,
    out,
    pixels,
    candidates,
    R: tl.constexpr,
    HOW1: tl.constexpr,
    HOW2: tl.constexpr,
    RANGES: tl.constexpr,
    PRECISION: tl.constexpr,
    DIM: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    """out: [R, 3, n] for each relation and pixel: what attracts, what repels, the own segment."""
    rows, d = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, D)
    inside = rows < pixels
    e = _vectors(embedding, rows, d, pixels, DIM)
    # The relations by name, not in a list: what a loop carries from tile to tile are tensors.
    mine = tl.load(own + rows, mask=inside, other=-1)
    g0 = tl.load(group + rows, mask=inside, other=0)
    if R > 1:
        g1 = tl.load(group + pixels + rows, mask=inside, other=0)
    if R > 2:
        g2 = tl.load(group + 2 * pixels + rows, mask=inside, other=0)
    positive0, negative0, own0 = (
        tl.zeros([M], tl.float32),
        tl.zeros([M], tl.float32),
        tl.zeros([M], tl.float32),
    )
    positive1, negative1, own1 = positive0, negative0, own0
    positive2, negative2, own2 = positive0, negative0, own0
    first, last = _span(columns_of, rows, inside, candidates, N, RANGES)
    for start in range(first, last, N):
        columns = start + tl.arange(0, N)
        there = columns < candidates
        p = _vectors(prototype, columns, d, candidates, DIM)
        times = tl.load(stands_for + columns, mask=there, other=0.0)
        itself = mine[:, None] == columns[None, :]
        s = _product(e, tl.trans(p), PRECISION)
        x = _exponentials(s, kappa0, s, 0)
        positive, negative, entry = _sums(
            x, _codes(codes, g0, columns, inside, there, candidates), itself, times
        )
        positive0, negative0, own0 = positive0 + positive, negative0 + negative, own0 + entry
        if R > 1:
            x = _exponentials(s, kappa1, x, HOW1)
            positive, negative, entry = _sums(
                x, _codes(codes, g1, columns, inside, there, candidates), itself, times
            )
            positive1, negative1, own1 = positive1 + positive, negative1 + negative, own1 + entry
        if R > 2:
            x = _exponentials(s, kappa2, x, HOW2)
            positive, negative, entry = _sums(
                x, _codes(codes, g2, columns, inside, there, candidates), itself, times
            )
            positive2, negative2, own2 = positive2 + positive, negative2 + negative, own2 + entry
    _store_sums(out, 0, rows, pixels, positive0, negative0, own0)
    if R > 1:
        _store_sums(out, 1, rows, pixels, positive1, negative1, own1)
    if R > 2:
        _store_sums(out, 2, rows, pixels, positive2, negative2, own2)


@triton.jit
def _tile(
    e,
    p,
    rows,
    columns,
    own,
    codes,
    group,
    stands_for,
    kappa0,
    kappa1,
    kappa2,
    weights,
    pixels,
    candidates,
    R: tl.constexpr,
    HOW1: tl.constexpr,
    HOW2: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """[m, n] of ∂loss/∂similarity over all relations."""
    inside, there = rows < pixels, columns < candidates
    times = tl.load(stands_for + columns, mask=there, other=0.0)
    itself = tl.load(own + rows, mask=inside, other=-1)[:, None] == columns[None, :]
    s = _product(e, tl.trans(p), PRECISION)
    x = _exponentials(s, kappa0, s, 0)
    code = _codes(codes, tl.load(group + rows, mask=inside, other=0), columns, inside, there, candidates)
    positive, negative, entry = _weights(weights, 0, rows, pixels)
    grad = _gradient(x, code, itself, times, positive, negative, entry)
    if R > 1:
        x = _exponentials(s, kappa1, x, HOW1)
        g = tl.load(group + pixels + rows, mask=inside, other=0)
        positive, negative, entry = _weights(weights, 1, rows, pixels)
        code = _codes(codes, g, columns, inside, there, candidates)
        grad += _gradient(x, code, itself, times, positive, negative, entry)
    if R > 2:
        x = _exponentials(s, kappa2, x, HOW2)
        g = tl.load(group + 2 * pixels + rows, mask=inside, other=0)
        positive, negative, entry = _weights(weights, 2, rows, pixels)
        code = _codes(codes, g, columns, inside, there, candidates)
        grad += _gradient(x, code, itself, times, positive, negative, entry)
    return grad


@triton.jit(do_not_specialize=SIZES)
def to_pixels(
    embedding,
    prototype,
    own,
    codes,
    group,
    stands_for,
    columns_of,
    kappa0,
    kappa1,
    kappa2,
    weights,
    out,
    pixels,
    candidates,
    R: tl.constexpr,
    HOW1: tl.constexpr,
    HOW2: tl.constexpr,
    RANGES: tl.constexpr,
    PRECISION: tl.constexpr,
    DIM: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    """out: [n, DIM] gradient of the pixels' vectors. weights: [R, 3, n] as `_gradient` takes them."""
    rows, d = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, D)
    inside = rows < pixels
    e = _vectors(embedding, rows, d, pixels, DIM)
    total = tl.zeros([M, D], tl.float32)
    first, last = _span(columns_of, rows, inside, candidates, N, RANGES)
    for start in range(first, last, N):
        columns = start + tl.arange(0, N)
        p = _vectors(prototype, columns, d, candidates, DIM)
        grad = _tile(
            e, p, rows, columns, own, codes, group, stands_for, kappa0, kappa1, kappa2, weights,
            pixels, candidates, R, HOW1, HOW2, PRECISION,
        )  # fmt: skip
        total += _product(grad, p, PRECISION)
    place = rows[:, None].to(tl.int64) * DIM + d[None, :]
    tl.store(out + place, total, mask=inside[:, None] & (d < DIM)[None, :])


@triton.jit(do_not_specialize=SIZES)
def to_prototypes(
    embedding,
    prototype,
    own,
    codes,
    group,
    stands_for,
    rows_of,
    kappa0,
    kappa1,
    kappa2,
    weights,
    out,
    pixels,
    candidates,
    learning,
    part,
    R: tl.constexpr,
    HOW1: tl.constexpr,
    HOW2: tl.constexpr,
    RANGES: tl.constexpr,
    PRECISION: tl.constexpr,
    DIM: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    """out: [parts, learning, DIM] gradient of the first candidates, by parts of `part` pixels each."""
    # Few candidates would make few programs and leave most of a GPU idle, so the pixels are cut into parts,
    # which the caller adds up.
    columns, d = tl.program_id(0) * N + tl.arange(0, N), tl.arange(0, D)
    there, number = columns < learning, tl.program_id(1)
    p = _vectors(prototype, columns, d, candidates, DIM)
    total = tl.zeros([N, D], tl.float32)
    first, last = _span(rows_of, columns, there, pixels, M, RANGES)
    first, last = tl.maximum(first, number * part), tl.minimum(last, (number + 1) * part)
    for start in range(first, last, M):
        rows = start + tl.arange(0, M)
        e = _vectors(embedding, rows, d, pixels, DIM)
        grad = _tile(
            e, p, rows, columns, own, codes, group, stands_for, kappa0, kappa1, kappa2, weights,
            pixels, candidates, R, HOW1, HOW2, PRECISION,
        )  # fmt: skip
        total += _product(tl.trans(grad), e, PRECISION)
    place = (number * learning + columns)[:, None].to(tl.int64) * DIM + d[None, :]
    tl.store(out + place, total, mask=there[:, None] & (d < DIM)[None, :])
