"""Collectives of the step: what several processes see is what one would."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist

from spml_dist import comm
from tests.spawn import spawn

COUNTS = [[2, 3, 1], [0, 4, 0], [0, 0, 5], [0, 0, 0], [1, 1, 1]]
"""rows of each rank, for three ranks; two ranks take the first two"""


def rows(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 4, generator=generator, dtype=torch.float64)


def loss(everything: torch.Tensor, rank: int) -> torch.Tensor:
    """Another function of all rows on every rank."""
    weight = torch.arange(everything.numel(), dtype=everything.dtype).reshape(everything.shape) + 1
    return ((rank + 1) * weight * everything.square()).sum()


def backward(loss: torch.Tensor) -> list[tuple[str, int, int]]:
    """The collectives of a backward pass: their name, and the bytes that this rank sends and receives."""
    noted = []

    def exchanging(out: torch.Tensor, given: torch.Tensor, *sizes):
        noted.append(("all_to_all_single", given.nbytes, out.nbytes))
        return exchange(out, given, *sizes)

    def reducing(tensor: torch.Tensor):
        noted.append(("all_reduce", 2 * tensor.nbytes, 2 * tensor.nbytes))
        return reduce(tensor)

    exchange, reduce = dist.all_to_all_single, dist.all_reduce
    with patch.object(dist, "all_to_all_single", exchanging), patch.object(dist, "all_reduce", reducing):
        loss.backward()
    return noted


def observe(rank: int) -> dict:
    """Everything that one rank sees."""
    cases, sent = [], []
    for case in COUNTS:
        counts = case[: comm.world()]
        mine = rows(sum(counts))[sum(counts[:rank]) : sum(counts[: rank + 1])].requires_grad_()
        gathered = comm.gather_rows(mine, comm.gather_counts(len(mine)))
        sent.append(backward(loss(gathered, rank)))
        integers = comm.gather_rows(torch.arange(counts[rank]) + 10 * rank, counts)
        facts = comm.gather_rows(torch.full((counts[rank], 3), rank, dtype=torch.uint8), counts)
        cases.append((comm.gather_counts(len(mine)), gathered.detach(), mine.grad, integers, facts))
    ours = torch.tensor([0.1 * (rank + 1), float(rank)], requires_grad=True)
    comm.barrier()
    return {
        "world": (comm.rank(), comm.world()),
        "gathered": cases,
        "sent": sent,
        "sum": comm.sum_all(ours),
        "untouched": ours.detach(),
        "said": comm.from_rank_zero({"from": rank}),
        "agreed": comm.agree(None, rank + 1, (rank + 1) << 40),
    }


@pytest.fixture(scope="module", params=[1, 2, 3])
def seen(request) -> list[dict]:
    """What every rank of a world saw."""
    return [observe(0)] if request.param == 1 else spawn(observe, request.param)


def test_every_rank_knows_its_place(seen):
    assert [ours["world"] for ours in seen] == [(rank, len(seen)) for rank in range(len(seen))]


def test_gathered_rows_are_those_of_all_ranks_in_rank_order(seen):
    for number, case in enumerate(COUNTS):
        counts = case[: len(seen)]
        for ours in seen:
            outcome, gathered, _, integers, facts = ours["gathered"][number]
            assert outcome == counts
            assert torch.equal(gathered, rows(sum(counts)))
            assert integers.tolist() == [10 * r + i for r, n in enumerate(counts) for i in range(n)]
            assert facts[:, 0].tolist() == [r for r, n in enumerate(counts) for _ in range(n)]
            assert facts.shape == (sum(counts), 3) and facts.dtype == torch.uint8


def test_gradient_returns_to_each_row_s_owner_summed_over_ranks(seen):
    for number, case in enumerate(COUNTS):
        everything = rows(sum(case[: len(seen)])).requires_grad_()
        sum(loss(everything, rank) for rank in range(len(seen))).backward()
        grads = [ours["gathered"][number][2] for ours in seen]
        torch.testing.assert_close(torch.cat(grads), everything.grad, rtol=1e-14, atol=0)


def test_gradient_takes_to_each_rank_what_is_its_own(seen):
    """Not all of it to all, which would be received by everybody and then sent on: 32 bytes a row."""
    for number, case in enumerate(COUNTS):
        counts = case[: len(seen)]
        for rank, ours in enumerate(seen):
            received = len(seen) * counts[rank]
            once = ("all_to_all_single", 32 * sum(counts), 32 * received)
            assert ours["sent"][number] == ([once] if len(seen) > 1 else [])


def test_a_sum_is_the_same_bits_everywhere_and_leaves_its_input(seen):
    expected = torch.stack([ours["untouched"] for ours in seen]).sum(dim=0)
    for rank, ours in enumerate(seen):
        assert torch.equal(ours["sum"], seen[0]["sum"]) and not ours["sum"].requires_grad
        torch.testing.assert_close(ours["sum"], expected)
        assert ours["untouched"][1] == rank


def test_rank_zero_speaks_for_all(seen):
    assert [ours["said"] for ours in seen] == [{"from": 0}] * len(seen)


def test_who_agrees_that_nothing_is_wrong_adds_up_numbers(seen):
    whole = sum(range(1, len(seen) + 1))
    assert [ours["agreed"] for ours in seen] == [[whole, whole << 40]] * len(seen)
