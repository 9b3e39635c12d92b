"""The release's SGD and its learning rates (SPML, appendix A.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

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

    def velocities(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The buffers v of named parameters."""
        return {name: self._velocity(p) for name, p in parameters.items()}

    def set_velocities(self, parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        """Put back what `velocities` returned."""
        for name, parameter in parameters.items():
            self._velocity(parameter).copy_(values[name])

    def _velocity(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            # torch's own name, by which DeepSpeed splits and finds it.
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name: those of a frozen prefix have no momentum."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Every group's learning rate: its multiplier times the scheduled rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict]:
    """Up to six groups: weights and biases of the backbone, of the head, of the classifier. Biases decay by
    nothing.

    `multiplier` scales the scheduled rate: head_multiplier for the heads, times bias_multiplier for biases.
    """
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # Head and classifier learn alike; apart, each part of the gradient is whole groups of it.
            key = (not name.startswith("backbone."), is_classifier(name), name.endswith("bias"))
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": params,
            "multiplier": (config.head_multiplier if head else 1) * (config.bias_multiplier if bias else 1),
            "weight_decay": 0.0 if bias else config.weight_decay,
        }
        for (head, _, bias), params in sorted(groups.items())
    ]


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
