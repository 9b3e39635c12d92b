"""What `engine.zero.Zero` offers, in plain torch: for a debugger, and for float64."""

from __future__ import annotations

from torch import Tensor, nn

from spml_dist import comm
from spml_dist.config import Config
from spml_dist.train.clipping import Clipping, divided_by_part, is_classifier
from spml_dist.train.finite_check import Guard
from spml_dist.train.optimizer import Sgd, parameter_groups, set_rate


class Plain:
    """The network and its optimiser."""

    def __init__(self, model: nn.Module, config: Config, state: dict[str, dict[str, Tensor]] | None = None):
        """state: what `state` returned, of any engine with any number of workers."""
        if state:
            model.load_state_dict(state["weights"])
        self._model = model
        self._parts, self._done = config.engine.accumulation, 0
        self.device = next(model.parameters()).device
        self.guard = Guard(model, self.device)
        settings = config.optimizer
        self._clip_norm = settings.clip_norm if settings.clip == "together" else None
        self.clipping = Clipping(settings, self.device)
        self._sgd = Sgd(
            parameter_groups(model, settings), settings.lr, settings.momentum, stop=self.guard.stop
        )
        if state:
            self._sgd.set_velocities(_trained(model), state["momentum"])

    def __call__(self, *inputs) -> tuple[Tensor, Tensor]:
        return self._model(*inputs)

    def backward(self, loss: Tensor) -> None:
        (loss / self._parts).backward()

    def step(self) -> None:
        """One optimiser step after every `engine.accumulation` calls."""
        self._done += 1
        if self._done % self._parts == 0:
            for parameter in self._model.parameters():
                if parameter.grad is not None:
                    parameter.grad = comm.sum_all(parameter.grad) / comm.world()
            gradients = (
                (is_classifier(name), parameter.grad)
                for name, parameter in self._model.named_parameters()
                if parameter.grad is not None
            )
            self.clipping.apply(*divided_by_part(gradients), divided=False)
            if self._clip_norm:
                nn.utils.clip_grad_norm_(self._model.parameters(), self._clip_norm)
            self._sgd.step()
            self._sgd.zero_grad()

    def set_rate(self, rate: float) -> None:
        set_rate(self._sgd, rate)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """ "weights" and "momentum" by name."""
        weights = {name: value.detach() for name, value in self._model.state_dict().items()}
        return {"weights": weights, "momentum": self._sgd.velocities(_trained(self._model))}


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
