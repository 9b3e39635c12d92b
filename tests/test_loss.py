"""The contrastive loss against a slow, obvious formula."""

from __future__ import annotations

from dataclasses import dataclass
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from spml_dist import loss
from spml_dist.loss import contrast
from spml_dist.schema import Block, Relation


def pixel_loss(similarities: Tensor, attract: Tensor, repel: Tensor, own: int, own_repels: bool):
    """(loss of a pixel, whether it has no positive). similarities: [P] S_it; attract, repel: [P] bool.

    own: the pixel's own segment, anything outside 0..P-1 for none. Equation 2, without any shift.
    """
    candidates = range(len(similarities))
    positives = [t for t in candidates if attract[t] and t != own]
    negatives = [t for t in candidates if repel[t] and (t != own or own_repels)]
    if positives:
        numerator = similarities[positives].sum()
    elif own in candidates:
        numerator = similarities[own]
    else:
        return similarities.sum() * 0, True
    return -torch.log(numerator / (numerator + similarities[negatives].sum())), not positives


def dense(embedding, prototype, own, blocks, weights):
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
                masks = relation.attract[group], relation.repel[group]
                value, alone = pixel_loss(s, *masks, int(own[i]) - first, relation.own_repels)
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

    def solve(self, dtype=torch.float64):
        """loss, values, pixels without positive, gradients of embedding and prototype."""
        e, p = self._leaves(dtype)
        result = contrast(e, p, self.own, self.blocks, self.weights, self.constants)
        result.loss.backward()
        return result.loss.item(), result.values, result.without_positive.tolist(), e.grad, p.grad

    def reference(self):
        e, p = self._leaves(torch.float64)
        total, values, without = dense(e, p, self.own, self.blocks, self.weights)
        total.backward()
        p.grad[len(p) - self.constants :] = 0
        return total.item(), torch.stack(values).detach(), without, e.grad, p.grad

    def _leaves(self, dtype):
        return (v.detach().to(dtype, copy=True).requires_grad_() for v in (self.embedding, self.prototype))


def units(generator, count: int, channels: int) -> Tensor:
    return normalize(torch.randn(count, channels, generator=generator, dtype=torch.float64), dim=1)


def relations_of(generator, n: int, p: int, kappas, own_repels) -> tuple[Relation, ...]:
    """Random relations over n pixels and p candidates: disjoint masks, some neutral, some groups absent."""
    result = []
    for kappa, repels in zip(kappas, own_repels, strict=True):
        groups = int(torch.randint(1, 5, (), generator=generator))
        kind = torch.randint(0, 3, (groups, p), generator=generator)
        group = torch.randint(-1, groups, (n,), generator=generator)
        result.append(Relation(group, kind == 0, kind == 1, kappa, repels))
    return tuple(result)


@st.composite
def problems(draw) -> Problem:
    n, p, relations = draw(st.integers(0, 40)), draw(st.integers(0, 12)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    kappas = draw(st.lists(st.floats(0.5, 40), min_size=relations, max_size=relations))
    own_repels = draw(st.lists(st.booleans(), min_size=relations, max_size=relations))
    channels = draw(st.integers(2, 5))
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=2)))
    blocks = []
    for start, stop in zip([0, *cuts], [*cuts, n], strict=True):
        first = draw(st.integers(0, p)) if cuts else 0
        last = draw(st.integers(first, p)) if cuts else p
        blocks.append(
            Block(
                rows=slice(start, stop),
                columns=slice(first, last),
                relations=relations_of(generator, stop - start, last - first, kappas, own_repels),
                scale=tuple(draw(st.floats(0.01, 1)) for _ in kappas),
            )
        )
    return Problem(
        embedding=units(generator, n, channels),
        prototype=units(generator, p, channels),
        own=torch.randint(-1, p + 2, (n,), generator=generator),
        blocks=blocks,
        weights=tuple(draw(st.sampled_from([0.0, 0.3, 1.0])) for _ in kappas),
        constants=draw(st.integers(0, p)),
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


def one_pixel(attract, repel, own, own_repels=False, kappa=2.0) -> Problem:
    """A single pixel and three candidates at cosines 1, 0 and -1."""
    masks = (torch.tensor([m], dtype=torch.bool) for m in (attract, repel))
    relation = Relation(torch.zeros(1, dtype=torch.int64), *masks, kappa, own_repels)
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
    expected = example(n=n).solve()
    with mock.patch.multiple(loss, TILE=tile, RUN=5):
        assert_close(example(n=n).solve(), expected, 1e-13)


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
