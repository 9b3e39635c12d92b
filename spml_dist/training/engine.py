"""What the loop asks of an engine: the network, its optimiser, and their state."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from spml_dist.training.clipping import Clipping
from spml_dist.training.finite_check import FiniteCheck

EngineState = dict[str, dict[str, Tensor]]
"""`weights`, `momentum` and, of AdamW, `second_moment` by the parameters' names: whole tensors, whatever the
number of workers"""


class Engine(Protocol):
    """`DeepSpeedEngine` or `TorchEngine`."""

    device: torch.device
    finite_check: FiniteCheck
    """watches what `backward` computes, and keeps `step` from following it where it is not finite"""

    clipping: Clipping
    """measures the gradients that `step` follows, and limits them apart where that is asked for"""

    def __call__(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        """What the network gives for a micro-batch."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add a micro-batch's gradient. loss: scalar, to be averaged over micro-batches and ranks."""
        ...

    def step(self) -> None:
        """After each `backward`; the weights move at every `engine.accumulation`-th call. A collective."""
        ...

    def set_rate(self, rate: float) -> None:
        """The scheduled learning rate from the next step on."""
        ...

    def state(self) -> EngineState:
        """Whole on every rank; a collective."""
        ...
