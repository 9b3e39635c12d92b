"""The release's SGD and its learning rates (SPML, appendix A.4); AdamW beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spml_dist.config.models import OptimizerConfig, ScheduleConfig
from spml_dist.training.clipping import is_classifier


class Sgd(torch.optim.Optimizer):
    """Momentum SGD with the learning rate inside the buffer: v ← m·v + lr·(g + wd·p); p ← p - v.

    torch's SGD multiplies the buffer by the current rate instead, so a changing rate acts differently.
    """

    def __init__(
        self, params: Iterable, lr: float, momentum: float, weight_decay=0.0, stop: Tensor | None = None
    ):
        """momentum: above 0; stop: a float32 scalar on the device; while it is 1, a step does nothing."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._stop = stop

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            # The fused kernel's own rate stays 1; its dampening brings ours into the buffer. Of torch's
            # kernels it is the one with a flag on the device (found_inf) that keeps it from doing anything.
            torch._fused_sgd_(
                params,
                [p.grad for p in params],
                [self._velocity(p) for p in params],
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=1.0,
                dampening=1 - group["lr"],
                nesterov=False,
                maximize=False,
                is_first_step=False,
                grad_scale=None,
                found_inf=self._stop,
            )
        return loss

    KEPT: ClassVar = {"momentum": "momentum_buffer"}
    """what a checkpoint keeps, by torch's own name for it, by which DeepSpeed splits and finds it"""

    def prepared(self, parameter: Tensor) -> dict[str, Any]:
        """A parameter's state, made where there is none yet."""
        self._velocity(parameter)
        return self.state[parameter]

    def _velocity(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


class AdamW(torch.optim.AdamW):
    """torch's AdamW in one kernel, which does nothing while a flag on the device is 1."""

    KEPT: ClassVar = {"momentum": "exp_avg", "second_moment": "exp_avg_sq"}

    def __init__(self, params: Iterable, lr: float, momenta: tuple[float, float], stop: Tensor | None = None):
        super().__init__(params, lr=lr, betas=momenta, weight_decay=0.0, fused=True)
        self.found_inf = stop

    def prepared(self, parameter: Tensor) -> dict[str, Any]:
        """A parameter's state, made where there is none yet."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state |= {name: torch.zeros_like(parameter) for name in self.KEPT.values()}
        return state


Optimizer = Sgd | AdamW


def optimizer_of(model: nn.Module, settings: OptimizerConfig, stop: Tensor | None) -> Optimizer:
    """The optimiser that a configuration asks for. stop: as `Sgd` takes it."""
    groups = parameter_groups(model, settings)
    if settings.kind == "adamw":
        return AdamW(groups, settings.lr, (settings.momentum, settings.second_momentum), stop)
    return Sgd(groups, settings.lr, settings.momentum, stop=stop)


STEPS = "steps"
"""name beside the parameters' under which a second moment keeps how many steps it has seen"""


def state_of(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What the optimiser keeps of named parameters, by kind and name."""
    states = {name: optimizer.prepared(p) for name, p in parameters.items()}
    kept = {
        kind: {name: state[key] for name, state in states.items()} for kind, key in optimizer.KEPT.items()
    }
    return with_steps(kept, next((state.get("step") for state in states.values()), None))


def with_steps(kept: dict[str, dict[str, Tensor]], steps: Tensor | None) -> dict[str, dict[str, Tensor]]:
    """The same with how many steps a second moment has seen, where there is one."""
    if steps is not None:
        kept["second_moment"][STEPS] = steps.clone()
    return kept


def set_state(
    optimizer: Optimizer, parameters: Mapping[str, Tensor], kept: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Put back what `state_of` returned."""
    for name, parameter in parameters.items():
        state = optimizer.prepared(parameter)
        for kind, key in optimizer.KEPT.items():
            state[key].copy_(kept[kind][name])
        if "step" in state:
            state["step"].copy_(kept["second_moment"][STEPS])


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name: those of a frozen prefix have no momentum."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Every group's learning rate: its multiplier times the scheduled rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict]:
    """Groups of parameters that learn alike: weights and biases of the backbone, of the head, of the
    classifier, and of each block of the backbone where `layer_decay` tells them apart. Biases decay by
    nothing, nor does what else has one dimension unless `decay_norms` says so.

    `multiplier` scales the scheduled rate: head_multiplier for the heads, layer_decay for each block that
    follows, times bias_multiplier for biases.
    """
    groups: dict[tuple[bool, bool, bool, bool, int], list[nn.Parameter]] = {}
    blocks = _blocks([name for name, _ in model.named_parameters() if name.startswith("backbone.")])
    last = max(blocks.values(), default=0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            bias = name.endswith("bias")
            fixed = bias or (parameter.ndim <= 1 and not config.decay_norms)
            after = 0 if config.layer_decay == 1 else last + 1 - blocks.get(name, last + 1)
            # Head and classifier learn alike; apart, each part of the gradient is whole groups of it.
            key = (not name.startswith("backbone."), is_classifier(name), bias, fixed, after)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": params,
            "multiplier": (config.head_multiplier if head else config.layer_decay**after)
            * (config.bias_multiplier if bias else 1),
            "weight_decay": 0.0 if fixed else config.weight_decay,
        }
        for (head, _, bias, fixed, after), params in sorted(groups.items(), key=lambda group: group[0])
    ]


def _blocks(names: Iterable[str]) -> dict[str, int]:
    """Number of the block that each of a backbone's parameters belongs to: 0 for what comes before the first.

    A block is a numbered part that has parts of its own, such as blocks.3 or layer2.0; what comes after the
    last belongs to it.
    """
    found: dict[str, int] = {}
    result, number = {}, 0
    for name in names:
        if block := _BLOCK.match(name):
            number = found.setdefault(block.group(), len(found) + 1)
        result[name] = number
    return result


_BLOCK = re.compile(r".*?\.\d+\.(?=[^.]+\.[^.]+)")


def learning_rate(step: int, base: float, schedule: ScheduleConfig) -> float:
    """Rate of a step (counted from 0): base·(1 - step/steps)^power, or base·0.1^(decays passed).

    For step < warmup: min(base·(0.1·(1 - step/warmup) + step/warmup), that).
    """
    if schedule.policy == "poly":
        assert schedule.power is not None  # the configuration requires it of this policy
        rate = base * (1 - step / schedule.steps) ** schedule.power
    else:
        rate = base * 0.1 ** sum(step >= decay for decay in schedule.decays)
    if step < schedule.warmup:
        passed = step / schedule.warmup
        rate = min(base * (0.1 * (1 - passed) + passed), rate)
    return rate
