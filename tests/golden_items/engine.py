"""Golden items of the optimiser and its schedule."""

from __future__ import annotations

import numpy as np
import torch

from spml_dist.config.models import ScheduleConfig
from spml_dist.training.optimizer import Sgd, learning_rate


def j_lr(z):
    base, steps, warmup, power = float(z["base_lr"]), int(z["max_iter"]), int(z["warmup"]), float(z["power"])

    def worst(name, **changes):
        fields = {"steps": steps, "policy": "poly", "power": power, "warmup": 0, "decays": ()} | changes
        schedule = ScheduleConfig(**fields)
        ours = [learning_rate(step, base, schedule) for step in z["iters"].tolist()]
        return (name, float(np.abs(np.array(ours) - z[name]).max()), 1e-12)

    decays = tuple(z["step_decays"].tolist())
    return [
        worst("poly", warmup=warmup),
        worst("poly_nowarmup"),
        _step(worst, decays, warmup),
    ]


def _step(worst, decays, warmup):
    with_warmup, without = (
        worst("step", policy="step", power=None, decays=decays, warmup=w) for w in (warmup, 0)
    )
    return min(with_warmup, without, key=lambda row: row[1])


def n_sgd(z):
    params, i = [], 0
    while f"p{i}_init" in z.files:
        params.append(torch.nn.Parameter(torch.from_numpy(z[f"p{i}_init"])))
        i += 1
    groups = [
        {"params": [p], "weight_decay": float(decay)}
        for p, decay in zip(params, z["weight_decay"], strict=True)
    ]
    optimizer = Sgd(groups, lr=0.0, momentum=float(z["momentum"]))
    rows = []
    for step, lr in enumerate(z["lrs"].tolist()):
        for i, (p, group) in enumerate(zip(params, optimizer.param_groups, strict=True)):
            group["lr"] = lr * float(z["mult"][i])
            p.grad = torch.from_numpy(z[f"grad{step}_p{i}"])
        optimizer.step()
        for i, p in enumerate(params):
            rows.append(
                (f"after{step}_p{i}", float(np.abs(p.detach().numpy() - z[f"after{step}_p{i}"]).max()), 1e-6)
            )
    return rows
