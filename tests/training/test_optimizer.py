"""The release's SGD, its groups and its learning rates."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spml_dist.config.models import OptimizerConfig, ScheduleConfig
from spml_dist.training.optimizer import (
    AdamW,
    Sgd,
    learning_rate,
    optimizer_of,
    parameter_groups,
    set_state,
    state_of,
)

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


BETAS = (0.9, 0.99)


def adamw(p: nn.Parameter, stop: torch.Tensor | None = None) -> AdamW:
    return AdamW([{"params": [p], "weight_decay": 0.1}], 0.01, BETAS, stop)


def test_adamw_is_torch_s():
    ours, theirs = parameter(), parameter()
    torch_s = torch.optim.AdamW([theirs], 0.01, betas=BETAS, weight_decay=0.1)
    torch.testing.assert_close(run(adamw(ours), ours, RATES), run(torch_s, theirs, RATES))


def test_adamw_does_nothing_while_the_flag_is_up_and_does_not_count_the_step():
    p, stop = parameter(), torch.ones(())
    optimizer = adamw(p, stop)
    run(optimizer, p, RATES)
    assert torch.equal(p.detach(), parameter().detach())
    stop.zero_()
    fresh = parameter()
    torch.testing.assert_close(run(optimizer, p, RATES), run(adamw(fresh), fresh, RATES))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_an_optimiser_goes_on_from_its_state(kind):
    model, other = (nn.Sequential(nn.Linear(4, 3, bias=False)) for _ in range(2))
    one, two = (optimizer_of(each, settings(kind=kind), None) for each in (model, other))
    run(one, model[0].weight, RATES)
    other.load_state_dict(model.state_dict())
    set_state(two, dict(other.named_parameters()), state_of(one, dict(model.named_parameters())))
    last = run(one, model[0].weight, RATES), run(two, other[0].weight, RATES)
    torch.testing.assert_close(*last, rtol=0, atol=0)


class _Transformer(nn.Module):
    """Names and shapes of a transformer as timm has them."""

    def __init__(self):
        super().__init__()
        inner = nn.ModuleDict({"patch_embed": nn.ModuleDict({"proj": nn.Conv2d(3, 2, 2)})})
        blocks = (
            {"norm": nn.LayerNorm(2), "attn": nn.ModuleDict({"qkv": nn.Linear(2, 6)})} for _ in range(2)
        )
        inner["blocks"] = nn.ModuleList(map(nn.ModuleDict, blocks))
        inner["norm"] = nn.LayerNorm(2)
        self.backbone = nn.ModuleDict({"model": inner})
        self.head, self.classifier = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 3, 1)


def by_name(changes: dict) -> dict[str, tuple[float, float]]:
    """Multiplier and weight decay of each parameter."""
    model = _Transformer()
    names = {p: name for name, p in model.named_parameters()}
    groups = parameter_groups(model, settings(**changes))
    found = {names[p]: (g["multiplier"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(found) == len(names)
    return found


def test_blocks_learn_the_slower_the_earlier_they_come():
    plain, decayed = by_name({}), by_name({"layer_decay": 0.5})
    factors = {name: decayed[name][0] / rate for name, (rate, _) in plain.items()}
    expected = {"patch_embed": 0.125, "blocks.0": 0.25, "blocks.1": 0.5, "model.norm": 0.5, "head": 1}
    for part, factor in (expected | {"classifier": 1}).items():
        assert {value for name, value in factors.items() if part in name} == {factor}, part


def test_norms_decay_only_where_that_is_asked_for():
    plain, spared = by_name({}), by_name({"decay_norms": False})
    changed = {name for name in plain if plain[name] != spared[name]}
    assert changed == {name for name in plain if "norm.weight" in name}
    assert all(spared[name][1] == 0 for name in changed)
