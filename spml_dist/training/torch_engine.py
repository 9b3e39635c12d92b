"""An engine in plain torch: for a debugger, and for float64."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from spml_dist import comm
from spml_dist.config import Config
from spml_dist.training.clipping import Clipping, divided_by_part, is_classifier
from spml_dist.training.engine import EngineState
from spml_dist.training.finite_check import FiniteCheck
from spml_dist.training.optimizer import optimizer_of, set_rate, set_state, state_of, trainable


class TorchEngine:
    """The network and its optimiser; see `Engine`."""

    def __init__(self, model: nn.Module, config: Config, state: EngineState | None = None):
        """state: what `state` returned, of any engine with any number of workers."""
        if state:
            model.load_state_dict(state["weights"])
        self._model = model
        self._accumulation, self._micro_steps = config.engine.accumulation, 0
        self.device = next(model.parameters()).device
        self.finite_check = FiniteCheck(model, self.device)
        settings = config.optimizer
        self._clip_norm = settings.clip_norm if settings.clip == "together" else None
        self.clipping = Clipping(settings, self.device)
        self._optimizer = optimizer_of(model, settings, self.finite_check.stop)
        if state:
            set_state(self._optimizer, trainable(model), state)

    def __call__(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        return self._model(*inputs)

    def backward(self, loss: Tensor) -> None:
        (loss / self._accumulation).backward()

    def step(self) -> None:
        self._micro_steps += 1
        if self._micro_steps % self._accumulation == 0:
            for parameter in self._model.parameters():
                if parameter.grad is not None:
                    parameter.grad = comm.sum_all(parameter.grad) / comm.world()
            gradients = (
                (is_classifier(name), parameter.grad)
                for name, parameter in self._model.named_parameters()
                if parameter.grad is not None
            )
            self.clipping.apply(*divided_by_part(gradients), divided=False)
            # After the ranks' mean, as DeepSpeed does: each rank alone would clip another gradient.
            if self._clip_norm:
                nn.utils.clip_grad_norm_(self._model.parameters(), self._clip_norm)
            self._optimizer.step()
            self._optimizer.zero_grad()

    def set_rate(self, rate: float) -> None:
        set_rate(self._optimizer, rate)

    def state(self) -> EngineState:
        weights = {name: value.detach() for name, value in self._model.state_dict().items()}
        return {"weights": weights, **state_of(self._optimizer, trainable(self._model))}
