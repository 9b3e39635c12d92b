"""The release's SGD, its groups and its learning rates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spml_dist.config.models import OptimizerConfig, ScheduleConfig
from spml_dist.training.optimizer import Sgd, learning_rate, parameter_groups

RATES = (0.1, 0.2, 0.05, 0.05)


def settings(**changes) -> OptimizerConfig:
    fields = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "clip_norm": None}
    fields |= {"head_multiplier": 10.0, "bias_multiplier": 2.0}
    return OptimizerConfig(**fields | changes)


def parameter(seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)))


def gradient(step: int) -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(100 + step))


def run(optimizer: torch.optim.Optimizer, p: nn.Parameter, rates) -> torch.Tensor:
    for step, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        p.grad = gradient(step)
        optimizer.step()
    return p.detach()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_rate_is_inside_the_buffer(decay):
    p = parameter()
    expected, velocity = p.detach().clone(), torch.zeros(3, 4)
    for step, rate in enumerate(RATES):
        velocity = 0.9 * velocity + rate * (gradient(step) + decay * expected)
        expected = expected - velocity
    torch.testing.assert_close(run(Sgd([p], 0.0, 0.9, decay), p, RATES), expected)


def test_it_is_torch_s_sgd_while_the_rate_is_constant_and_another_once_it_changes():
    def both(rates):
        ours, theirs = parameter(), parameter()
        return run(Sgd([ours], 0.1, 0.9, 0.1), ours, rates), run(
            torch.optim.SGD([theirs], 0.1, momentum=0.9, weight_decay=0.1), theirs, rates
        )

    torch.testing.assert_close(*both((0.1,) * 4))
    ours, theirs = both((0.1, 0.2))
    # v₁ = 0.9·0.1·d₀ + 0.2·d₁ here, 0.2·(0.9·d₀ + d₁) there
    first = gradient(0) + 0.1 * parameter().detach()
    torch.testing.assert_close(ours - theirs, (0.2 - 0.1) * 0.9 * first)


def test_a_parameter_without_gradient_stays_and_has_no_state():
    with_gradient, without = parameter(), parameter()
    optimizer = Sgd([with_gradient, without], 0.1, 0.9)
    with_gradient.grad = gradient(0)
    optimizer.step()
    assert torch.equal(without, parameter()) and without not in optimizer.state
    assert list(optimizer.state[with_gradient]) == ["momentum_buffer"]


def test_a_gradient_is_not_changed_by_the_decay():
    p = parameter()
    p.grad = gradient(0)
    Sgd([p], 0.1, 0.9, 0.5).step()
    assert torch.equal(p.grad, gradient(0))


def test_it_goes_on_from_its_state():
    p, q = parameter(), parameter()
    whole = run(Sgd([p], 0.1, 0.9), p, (0.1, 0.1))
    first = Sgd([q], 0.1, 0.9)
    q.grad = gradient(0)
    first.step()
    second = Sgd([q], 0.1, 0.9)
    second.load_state_dict(first.state_dict())
    q.grad = gradient(1)
    second.step()
    assert torch.equal(q, whole)


class Network(nn.Module):
    """As the segmenter names its parts."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleDict({"stem": nn.Conv2d(3, 2, 1), "bn": nn.BatchNorm2d(2)})
        self.head = nn.Conv2d(2, 2, 1)
        self.classifier = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2))


def test_groups_weights_and_biases_of_backbone_head_and_classifier():
    model = Network()
    names = {p: name for name, p in model.named_parameters()}
    found = {
        frozenset(names[p] for p in group["params"]): (group["multiplier"], group["weight_decay"])
        for group in parameter_groups(model, settings())
    }
    assert found == {
        frozenset({"backbone.stem.weight", "backbone.bn.weight"}): (1, 0.01),
        frozenset({"backbone.stem.bias", "backbone.bn.bias"}): (2, 0.0),
        frozenset({"head.weight"}): (10, 0.01),
        frozenset({"head.bias"}): (20, 0.0),
        frozenset({"classifier.0.weight", "classifier.1.weight"}): (10, 0.01),
        frozenset({"classifier.1.bias"}): (20, 0.0),
    }


def test_frozen_parameters_are_in_no_group():
    model = Network()
    for p in model.backbone.parameters():
        p.requires_grad_(False)
    groups = parameter_groups(model, settings())
    assert [group["multiplier"] for group in groups] == [10, 20, 10, 20]


def schedule(**changes) -> ScheduleConfig:
    return ScheduleConfig(
        **{"steps": 100, "policy": "poly", "power": 0.9, "warmup": 10, "decays": ()} | changes
    )


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.1),
        (5, 0.1 * 0.5 + 0.5),
        (9, min(0.1 * 0.1 + 0.9, 0.91**0.9)),
        (10, 0.9**0.9),
        (50, 0.5**0.9),
        (99, 0.01**0.9),
        (100, 0.0),
    ],
)
def test_poly_with_warmup(step, expected):
    assert learning_rate(step, 3.0, schedule()) == pytest.approx(3.0 * expected, rel=1e-12)


def test_the_warmup_never_exceeds_the_policy():
    late = schedule(warmup=90)
    rates = [learning_rate(step, 1.0, late) for step in range(100)]
    assert all(r <= (1 - step / 100) ** 0.9 for step, r in enumerate(rates))
    assert rates[89] == pytest.approx(0.11**0.9)


def test_without_warmup_the_first_rate_is_the_base():
    assert learning_rate(0, 3.0, schedule(warmup=0)) == 3.0


@pytest.mark.parametrize(("step", "factor"), [(0, 1), (29, 1), (30, 0.1), (59, 0.1), (60, 0.01), (99, 0.01)])
def test_steps(step, factor):
    stepwise = schedule(policy="step", power=None, warmup=0, decays=(30, 60))
    assert learning_rate(step, 2.0, stepwise) == pytest.approx(2.0 * factor)
