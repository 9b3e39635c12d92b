"""torch.compile of a network's backbone and head, in place: names of parameters stay."""

from __future__ import annotations

import torch
from torch import nn

from spml_dist import comm


def compile_parts(model: nn.Module) -> str | None:
    """Let the backbone, and the head where there is one, be compiled at their first call.

    Returns why they are not, in a few words: no compiler works on this machine, or several workers share
    batch norms, whose statistics they exchange in the midst of the network.
    """
    norms = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    if norms and comm.world() > 1:
        return "the workers exchange the statistics of batch norms in the midst of the network"
    trouble = no_compiler(next(model.parameters()).device)
    if trouble:
        return f"torch finds no compiler that works here ({trouble})"
    for name in ("backbone", "head"):
        part = getattr(model, name, None)
        if part is not None:
            part.compile()  # the module stays what it is; a wrapper would rename its parameters
    return None


def no_compiler(device: torch.device) -> str | None:
    """Why torch cannot compile for a device, its first line; None if it can."""
    try:
        torch.compile(_probe)(torch.ones(8, device=device))
    except Exception as error:  # a compiler may fail in any way
        return next(iter(str(error).strip().splitlines()), type(error).__name__)
    return None


def _probe(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) + 1
