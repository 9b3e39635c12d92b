"""The contrastive loss against a slow, obvious formula."""

from __future__ import annotations

from dataclasses import dataclass, replace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from spml_dist.method import loss
from spml_dist.method.loss import contrast
from spml_dist.records import Block, Relation


def pixel_loss(
    similarities: Tensor,
    multiplicity: Tensor,
    attract: Tensor,
    repel: Tensor,
    own: int,
    own_repels: bool,
    attracting: int | None,
):
    """(loss of a pixel, whether it has no positive). similarities: [P] S_it; multiplicity: [P] rows that each
    candidate stands for; attract, repel: [P] bool; attracting: how many segments attract the pixel, its own
    included, None to count the candidates.

    own: the pixel's own segment, anything outside 0..P-1 for none. Equation 2, without any shift.
    """
    candidates = range(len(similarities))
    positives = [t for t in candidates if attract[t] and t != own]
    negatives = [t for t in candidates if repel[t] and (t != own or own_repels)]
    others = len(positives) if attracting is None else attracting - int(own in candidates and attract[own])
    stands_for = [1.0 if t == own else multiplicity[t] for t in candidates]
    if positives:
        numerator = sum(stands_for[t] * similarities[t] for t in positives)
    elif others == 0 and own in candidates:
        numerator = similarities[own]
    else:
        return similarities.sum() * 0, others == 0
    negative = sum(stands_for[t] * similarities[t] for t in negatives)
    return -torch.log(numerator / (numerator + negative)), others == 0


def dense(embedding, prototype, own, blocks, weights, multiplicity):
    """(loss, values [R], without [R]) as `contrast` gives them: pixel by pixel, candidate by candidate."""
    zero = (embedding.sum() + prototype.sum()) * 0
    values, without = [zero for _ in weights], [0] * len(weights)
    for block in blocks:
        first = block.columns.start
        for r, relation in enumerate(block.relations):
            for place, i in enumerate(range(block.rows.start, block.rows.stop)):
                group = int(relation.group[place])
                if group < 0 or not weights[r] or first == block.columns.stop:
                    continue
                s = torch.exp(relation.concentration * (prototype[block.columns] @ embedding[i]))
                value, alone = pixel_loss(
                    s,
                    multiplicity[block.columns],
                    relation.attract[group],
                    relation.repel[group],
                    int(own[i]) - first,
                    relation.own_repels,
                    None if relation.attracting is None else int(relation.attracting[group]),
                )
                values[r] = values[r] + block.scale[r] * value
                without[r] += alone
    return sum(w * v for w, v in zip(weights, values, strict=True)), values, without


@dataclass
class Problem:
    embedding: Tensor
    prototype: Tensor
    own: Tensor
    blocks: list[Block]
    weights: tuple[float, ...]
    constants: int = 0
    log_weight: Tensor | None = None

    def solve(self, dtype=torch.float64):
        """loss, values, pixels without positive, gradients of embedding and prototype."""
        e, p = self._leaves(dtype)
        result = contrast(e, p, self.own, self.blocks, self.weights, self.constants, self.log_weight)
        result.loss.backward()
        return result.loss.item(), result.values, result.without_positive.tolist(), e.grad, p.grad

    def reference(self):
        e, p = self._leaves(torch.float64)
        multiplicity = torch.ones(len(p), dtype=torch.float64)
        if self.log_weight is not None:
            multiplicity[len(p) - self.constants :] = self.log_weight.double().exp()
        total, values, without = dense(e, p, self.own, self.blocks, self.weights, multiplicity)
        total.backward()
        p.grad[len(p) - self.constants :] = 0
        return total.item(), torch.stack(values).detach(), without, e.grad, p.grad

    def _leaves(self, dtype):
        return (v.detach().to(dtype, copy=True).requires_grad_() for v in (self.embedding, self.prototype))


def units(generator, count: int, channels: int) -> Tensor:
    return normalize(torch.randn(count, channels, generator=generator, dtype=torch.float64), dim=1)


def relations_of(generator, n: int, p: int, kappas, own_repels, unseen: int = 0) -> tuple[Relation, ...]:
    """Random relations over n pixels and p candidates: disjoint masks, some neutral, some groups absent.

    unseen: at most so many others attract a group without being candidates; 0 = nobody counts them.
    """
    result = []
    for kappa, repels in zip(kappas, own_repels, strict=True):
        groups = int(torch.randint(1, 5, (), generator=generator))
        kind = torch.randint(0, 3, (groups, p), generator=generator)
        group = torch.randint(-1, groups, (n,), generator=generator)
        elsewhere = torch.randint(0, unseen + 1, (groups,), generator=generator)
        attracting = (kind == 0).sum(dim=1) + elsewhere if unseen else None
        result.append(Relation(group, kind == 0, kind == 1, kappa, repels, attracting))
    return tuple(result)


@st.composite
def problems(draw) -> Problem:
    n, p, relations = draw(st.integers(0, 40)), draw(st.integers(0, 12)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    kappas = draw(st.lists(st.floats(0.5, 40), min_size=relations, max_size=relations))
    own_repels = draw(st.lists(st.booleans(), min_size=relations, max_size=relations))
    channels = draw(st.integers(2, 5))
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=2)))
    constants, weighted, unseen = draw(st.integers(0, p)), draw(st.booleans()), draw(st.integers(0, 2))
    blocks = []
    for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
        first = draw(st.integers(0, p)) if cuts else 0
        last = draw(st.integers(first, p)) if cuts else p
        blocks.append(
            Block(
                rows=slice(start, stop),
                columns=slice(first, last),
                relations=relations_of(generator, stop - start, last - first, kappas, own_repels, unseen),
                scale=tuple(draw(st.floats(0.01, 1)) for _ in kappas),
            )
        )
    return Problem(
        embedding=units(generator, n, channels),
        prototype=units(generator, p, channels),
        own=torch.randint(-1, p + 2, (n,), generator=generator),
        blocks=blocks,
        weights=tuple(draw(st.sampled_from([0.0, 0.3, 1.0])) for _ in kappas),
        constants=constants,
        log_weight=7 * torch.rand(constants, generator=generator) if weighted else None,
    )


def assert_close(ours, theirs, tolerance: float):
    """Relative to the largest value, or to 1 where that is larger."""
    (loss_a, values_a, without_a, *grads_a), (loss_b, values_b, without_b, *grads_b) = ours, theirs
    assert without_a == without_b
    assert abs(loss_a - loss_b) <= tolerance * max(1, abs(loss_b))
    for a, b in zip([values_a, *grads_a], [values_b, *grads_b], strict=True):
        assert torch.isfinite(a).all()
        worst = (a.double() - b.double()).abs().max() if a.numel() else 0
        assert worst <= tolerance * max(1, b.abs().max() if b.numel() else 0)


@settings(deadline=None, max_examples=60)
@given(problems(), st.sampled_from([1, loss.TILE]), st.sampled_from([3, loss.RUN]))
def test_loss_and_gradient_are_those_of_the_dense_formula(problem, tile, run):
    with mock.patch.multiple(loss, TILE=tile, RUN=run):
        assert_close(problem.solve(), problem.reference(), 1e-12)


@settings(deadline=None, max_examples=25)
@given(problems())
def test_float32_stays_within_rounding(problem):
    assert_close(problem.solve(dtype=torch.float32), problem.reference(), 1e-5)


@settings(deadline=None, max_examples=15)
@given(problems(), st.sampled_from([torch.bfloat16, torch.float16]))
def test_half_precision_inputs_are_computed_in_float32(problem, dtype):
    total, values, _, *grads = problem.solve(dtype=dtype)
    rounded = Problem(**{**vars(problem), "embedding": problem.embedding.to(dtype)})
    rounded.prototype = problem.prototype.to(dtype)
    assert values.dtype == torch.float32
    assert abs(total - rounded.solve()[0]) <= 1e-5 * max(1, total)
    assert all(g.dtype == dtype and torch.isfinite(g).all() for g in grads)


def example(n=70, p=9, relations=2, seed=0, **changes) -> Problem:
    """A problem in which every pixel has an own segment among the candidates."""
    generator = torch.Generator().manual_seed(seed)
    whole = Block(
        rows=slice(0, n),
        columns=slice(0, p),
        relations=relations_of(generator, n, p, [6.0, 12.0][:relations], [False] * relations),
        scale=(1 / max(n, 1),) * relations,
    )
    own = torch.randint(0, p, (n,), generator=generator)
    fields = {"blocks": [whole], "weights": (1.0, 0.5)[:relations]} | changes
    return Problem(units(generator, n, 4), units(generator, p, 4), own, **fields)


def one_pixel(attract, repel, own, own_repels=False, kappa=2.0, attracting=None) -> Problem:
    """A single pixel and three candidates at cosines 1, 0 and -1."""
    masks = (torch.tensor([m], dtype=torch.bool) for m in (attract, repel))
    counts = None if attracting is None else torch.tensor([attracting])
    relation = Relation(torch.zeros(1, dtype=torch.int64), *masks, kappa, own_repels, counts)
    block = Block(slice(0, 1), slice(0, 3), (relation,), (1.0,))
    pixel = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    candidates = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    return Problem(pixel, candidates, torch.tensor([own]), [block], (1.0,))


S = torch.exp(2.0 * torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64))
"""S_it of `one_pixel`"""


@pytest.mark.parametrize(
    ("attract", "repel", "own", "own_repels", "numerator", "negative", "alone"),
    [
        ([1, 1, 0], [0, 0, 1], 0, False, S[1], S[2], 0),  # the own segment is left out
        ([1, 0, 0], [0, 1, 1], 0, False, S[0], S[1] + S[2], 1),  # fallback to the own segment
        ([0, 0, 0], [1, 1, 1], 0, False, S[0], S[1] + S[2], 1),  # own repels, counted once
        ([0, 0, 0], [1, 1, 1], 0, True, S[0], S[0] + S[1] + S[2], 1),  # the release's double count
        ([1, 1, 0], [0, 0, 1], -1, False, S[0] + S[1], S[2], 0),  # no own segment: nothing to leave out
        ([1, 1, 0], [0, 0, 1], 3, False, S[0] + S[1], S[2], 0),  # nor if it is not among these candidates
        ([0, 1, 0], [0, 0, 0], 0, False, S[1], torch.tensor(0.0), 0),  # nothing repels
    ],
)
def test_numerator_and_denominator_by_hand(attract, repel, own, own_repels, numerator, negative, alone):
    total, _, without, *_ = one_pixel(attract, repel, own, own_repels).solve()
    assert total == pytest.approx(-torch.log(numerator / (numerator + negative)).item(), abs=1e-14)
    assert without == [alone]


def test_a_pixel_with_neither_positives_nor_an_own_segment_has_no_loss():
    total, _, without, *grads = one_pixel([0, 0, 0], [1, 1, 1], own=-1).solve()
    assert total == 0 and without == [1]
    assert all((g == 0).all() for g in grads)


@pytest.mark.parametrize("own", [0, -1])
def test_a_pixel_whose_positives_are_all_elsewhere_has_no_loss_and_is_not_counted(own):
    attract = [own == 0, 0, 0]
    total, values, without, *grads = one_pixel(attract, [0, 1, 1], own, attracting=2).solve()
    assert total == 0 and without == [0] and values.tolist() == [0]
    assert all((g == 0).all() for g in grads)


def test_a_pixel_that_only_its_own_segment_attracts_anywhere_falls_back_to_it():
    exact, by_candidates = (
        one_pixel([1, 0, 0], [0, 1, 1], 0, attracting=1),
        one_pixel([1, 0, 0], [0, 1, 1], 0),
    )
    assert exact.solve()[2] == [1]
    assert_close(exact.solve(), by_candidates.solve(), 0)


def test_a_weighted_candidate_by_hand():
    """Beside a positive that stands for itself, one that stands for 5 rows, and a negative for 3."""
    problem = one_pixel([1, 1, 0], [0, 0, 1], own=-1)
    problem.constants, problem.log_weight = 2, torch.tensor([5.0, 3.0]).double().log()
    positive = S[0] + 5 * S[1]
    assert problem.solve()[0] == pytest.approx(torch.log(1 + 3 * S[2] / positive).item(), abs=1e-14)


def test_positives_far_away_are_not_mistaken_for_none():
    """Sum minus own in float32 loses a positive at cosine -1 beside an own segment at cosine 1."""
    problem = one_pixel([1, 0, 1], [0, 1, 0], own=0, kappa=40.0)
    total, _, without, *_ = problem.solve(dtype=torch.float32)
    assert without == [0]
    assert total == pytest.approx(40.0, rel=1e-6)


def test_gradient_by_finite_differences():
    problem = example(n=12, p=5)
    e, p = problem.embedding.requires_grad_(), problem.prototype.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda e, p: contrast(e, p, problem.own, problem.blocks, problem.weights).loss, (e, p)
    )


def test_the_gradient_follows_what_comes_after_the_loss():
    problem = example()
    e = problem.embedding.clone().requires_grad_()
    (3 * contrast(e, problem.prototype, problem.own, problem.blocks, problem.weights).loss).backward()
    torch.testing.assert_close(e.grad, 3 * problem.solve()[3], rtol=1e-12, atol=0)


def test_rows_of_a_bank_get_no_gradient_and_change_nobody_elses():
    free, bound = example().solve(), example(constants=4).solve()
    assert (bound[4][-4:] == 0).all() and (free[4][-4:] != 0).any(dim=1).all()
    assert torch.equal(bound[4][:-4], free[4][:-4])
    assert torch.equal(bound[3], free[3])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 6), max_size=5), st.integers(0, 1))
def test_a_candidate_of_weight_w_is_as_if_it_were_there_w_times(seed, times, unseen):
    learning, constants, n = 6, len(times), 40
    generator = torch.Generator().manual_seed(seed)
    once = relations_of(generator, n, learning + constants, [6.0, 12.0], [False, True], unseen)
    often = torch.tensor([1] * learning + times)
    repeated = tuple(
        replace(
            r,
            attract=r.attract.repeat_interleave(often, dim=1),
            repel=r.repel.repeat_interleave(often, dim=1),
        )
        for r in once
    )
    pixels, own = units(generator, n, 4), torch.randint(-1, learning, (n,), generator=generator)
    prototype = units(generator, learning + constants, 4)

    def solved(candidates, relations, constants, log_weight):
        block = Block(slice(0, n), slice(0, len(candidates)), relations, (1 / n, 1 / n))
        weighted = Problem(pixels, candidates, own, [block], (1.0, 0.5), constants, log_weight)
        *result, of_prototype = weighted.solve()
        return *result, of_prototype[:learning]

    log_weight = often[learning:].double().log()
    assert_close(
        solved(prototype, once, constants, log_weight),
        solved(prototype.repeat_interleave(often, dim=0), repeated, sum(times), None),
        1e-12,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_one_change_no_bit(dtype):
    plain = example(constants=4).solve(dtype)
    weighted = example(constants=4, log_weight=torch.zeros(4)).solve(dtype)
    assert weighted[0] == plain[0] and weighted[2] == plain[2]
    assert all(torch.equal(weighted[i], plain[i]) for i in (1, 3, 4))


def test_a_relation_of_weight_zero_is_as_if_it_were_not_there():
    both, one = example(weights=(0.7, 0.0)), example(weights=(0.7,))
    one.blocks = [Block(b.rows, b.columns, b.relations[:1], b.scale[:1]) for b in both.blocks]
    (total, values, without, *grads), alone = both.solve(), one.solve()
    assert values[1] == 0 and without[1] == 0
    assert total == alone[0] and all(torch.equal(a, b) for a, b in zip(grads, alone[3:], strict=True))


def test_values_are_unweighted_and_carry_no_gradient():
    problem = example(weights=(0.25, 0.5))
    e = problem.embedding.requires_grad_()
    result = contrast(e, problem.prototype, problem.own, problem.blocks, problem.weights)
    assert not result.values.requires_grad and not result.without_positive.requires_grad
    assert result.loss.item() == pytest.approx((result.values @ torch.tensor([0.25, 0.5]).double()).item())
    assert torch.equal(result.values, example(weights=(1.0, 1.0)).solve()[1])


@pytest.mark.parametrize("tile", [1, 200, 1 << 12])
@pytest.mark.parametrize("n", [15, 16, 17, 31, 33, 64, 129])
def test_tiles_and_runs_of_any_size_give_the_same(n, tile):
    problem = example(n=n, constants=3, log_weight=torch.tensor([0.0, 2.0, 5.0]))
    expected = problem.solve()
    with mock.patch.multiple(loss, TILE=tile, RUN=5):
        assert_close(problem.solve(), expected, 1e-13)


def test_the_scale_may_be_a_tensor():
    problem = example(relations=1)
    block = problem.blocks[0]
    scale = torch.tensor(block.scale[0], dtype=torch.float64)
    as_tensor = Block(block.rows, block.columns, block.relations, (scale,))
    assert_close(example(relations=1, blocks=[as_tensor]).solve(), problem.solve(), 1e-14)


def nobody(problem: Problem) -> list[Block]:
    block = problem.blocks[0]
    silent = tuple(
        Relation(torch.full_like(r.group, -1), r.attract, r.repel, r.concentration) for r in block.relations
    )
    return [Block(block.rows, block.columns, silent, block.scale)]


@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(example(n=0), id="no pixels"),
        pytest.param(example(p=9, blocks=[]), id="no blocks"),
        pytest.param(example(blocks=nobody(example())), id="no pixel takes part"),
        pytest.param(
            Problem(
                torch.randn(5, 3),
                torch.zeros(0, 3),
                torch.full((5,), -1),
                [
                    Block(
                        slice(0, 5),
                        slice(0, 0),
                        (Relation(torch.zeros(5).long(), *torch.zeros(2, 1, 0).bool(), 6.0),),
                        (1.0,),
                    )
                ],
                (1.0,),
            ),
            id="no candidates",
        ),
    ],
)
def test_nothing_to_contrast_is_a_zero_that_keeps_the_graph_alive(problem):
    total, values, without, *grads = problem.solve()
    assert total == 0 and not any(without) and (values == 0).all()
    assert all((g == 0).all() for g in grads)


class _Largest(TorchDispatchMode):
    """Entries of the largest tensor that any operation returned."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(part, Tensor):
                self.entries = max(self.entries, part.numel())
        return result


def test_nothing_of_size_pixels_times_candidates_exists():
    problem = example(n=3000, p=400)
    with mock.patch.object(loss, "TILE", 1 << 13), _Largest() as largest:
        problem.solve(dtype=torch.float32)
    assert 3000 * 4 <= largest.entries <= 3000 * 400 // 50
