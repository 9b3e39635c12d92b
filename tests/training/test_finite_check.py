"""After a loss or gradient that is not finite no weight changes, and the images are named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spml_dist.errors import RunError
from spml_dist.training.finite_check import FiniteCheck
from spml_dist.training.optimizer import Sgd
from tests.spawn import spawn


def train(values: list[float], keys: str = "abcdef") -> tuple[list[float], FiniteCheck]:
    """Steps on the loss w·value; the weight after each of them."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.ones_(net.weight)
    check = FiniteCheck(net, torch.device("cpu"))
    optimizer = Sgd([{"params": net.parameters(), "multiplier": 1}], lr=0.1, momentum=0.9, stop=check.stop)
    weights = []
    for step, (value, key) in enumerate(zip(values, keys, strict=False)):
        loss = net(torch.tensor([[value]])).sum()
        check.observe(loss)
        loss.backward()
        check.agree(step, (key,))
        optimizer.step()
        optimizer.zero_grad()
        weights.append(net.weight.item())
    return weights, check


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nothing_changes_from_the_first_bad_step_on(bad):
    weights, check = train([1.0, 2.0, bad, 1.0, 1.0])
    assert weights[0] != weights[1]
    assert weights[1:] == [weights[1]] * 4
    with pytest.raises(RunError, match=r"loss or gradient of step 3 is not finite, with these images: c;?"):
        check.require_finite()


def test_a_gradient_alone_is_noticed():
    net = nn.Linear(1, 1, bias=False)
    check = FiniteCheck(net, torch.device("cpu"))
    loss = net(torch.tensor([[1.0]])).sum() * 0
    check.observe(loss)
    (loss + (net.weight.abs() * 0).sqrt().sum()).backward()  # the root's slope at zero
    check.agree(0, ("a",))
    with pytest.raises(RunError, match="step 1 is not finite"):
        check.require_finite()


def test_finite_numbers_pass_and_large_ones_too():
    weights, check = train([1.0, 1e15, -1e15])
    check.require_finite()
    assert len(set(weights)) == 3


def test_step_and_images_are_those_of_the_rank_that_met_them_and_every_rank_stops():
    (first, error_0), (second, error_1) = spawn(one_rank, 2)
    assert first == [first[0]] * 4 and second == [second[0]] * 4  # frozen from the second step on
    assert error_0 == error_1
    assert "step 2 is not finite, with these images: b1;" in error_0


def test_one_rank_that_is_asked_to_stop_is_heard_by_all_at_that_step():
    assert spawn(asked_at_the_second_step, 2) == [[False, True, False]] * 2


def asked_at_the_second_step(rank: int) -> list[bool]:
    _, check = train([])
    heard = []
    for step in range(3):
        check.agree(step, (), stop_requested=(rank, step) == (1, 1))
        heard.append(check.stop_requested())
    check.require_finite()
    return heard


def one_rank(rank: int) -> tuple[list[float], str]:
    weights, check = train([1.0, float("nan") if rank else 1.0, 1.0, 1.0], [f"{key}{rank}" for key in "abcd"])
    with pytest.raises(RunError) as caught:
        check.require_finite()
    return weights, str(caught.value)
