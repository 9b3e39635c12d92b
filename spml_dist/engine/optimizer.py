"""The release's SGD and its learning rates (SPML, appendix A.4)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from spml_dist.config.sections import Optimizer as OptimizerConfig
from spml_dist.config.sections import Schedule as ScheduleConfig
from spml_dist.model.segmenter import Segmenter


class Sgd(torch.optim.Optimizer):
    """Momentum SGD with the learning rate inside the buffer: v ← m·v + lr·(g + wd·p); p ← p - v.

    torch's SGD multiplies the buffer by the current rate instead, so a changing rate acts differently.
    """

    def __init__(self, params: Iterable, lr: float, momentum: float, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            grads = [p.grad for p in params]
            if group["weight_decay"]:
                grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
            velocity = [self._velocity(p) for p in params]
            torch._foreach_mul_(velocity, group["momentum"])
            torch._foreach_add_(velocity, grads, alpha=group["lr"])
            torch._foreach_sub_(params, velocity)
        return loss

    def _velocity(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def parameter_groups(model: Segmenter, config: OptimizerConfig) -> list[dict]:
    """Up to four groups: weights and biases of the backbone, of the two heads. Biases decay by nothing.

    `multiplier` scales the scheduled rate: head_multiplier for the heads, times bias_multiplier for biases.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (not name.startswith("backbone."), name.endswith("bias"))
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": params,
            "multiplier": (config.head_multiplier if head else 1) * (config.bias_multiplier if bias else 1),
            "weight_decay": 0.0 if bias else config.weight_decay,
        }
        for (head, bias), params in sorted(groups.items())
    ]


def learning_rate(step: int, base: float, schedule: ScheduleConfig) -> float:
    """Rate of a step (counted from 0): base·(1 - step/steps)^power, or base·0.1^(decays passed).

    For step < warmup: min(base·(0.1·(1 - step/warmup) + step/warmup), that).
    """
    if schedule.policy == "poly":
        rate = base * (1 - step / schedule.steps) ** schedule.power
    else:
        rate = base * 0.1 ** sum(step >= decay for decay in schedule.decays)
    if step < schedule.warmup:
        passed = step / schedule.warmup
        rate = min(base * (0.1 * (1 - passed) + passed), rate)
    return rate
