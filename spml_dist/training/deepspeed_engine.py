"""The DeepSpeed engine: the only file that knows DeepSpeed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from spml_dist.config import Config
from spml_dist.training.clipping import Clipping, divided_by_part, is_classifier
from spml_dist.training.engine import EngineState
from spml_dist.training.finite_check import FiniteCheck
from spml_dist.training.optimizer import (
    STEPS,
    optimizer_of,
    set_rate,
    set_state,
    state_of,
    trainable,
    with_steps,
)


def prepare(device: torch.device, say: Callable[[str], None]) -> None:
    """Join DeepSpeed to the process group. On a CPU it compiles one small extension at its first use,
    which is kept beside the Python environment."""
    cache = Path(os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(extensions_folder())))
    # By itself it takes a GPU wherever it sees one, also in a training on CPUs.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    if device.type == "cpu" and not any(cache.glob("**/deepspeed_shm_comm.so")):
        say("DeepSpeed compiles its CPU extension once; this takes up to a minute")
    _import_deepspeed()
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    logging.getLogger("deepspeed").setLevel(logging.ERROR)
    # It joins the group that is there; its own would want MPI or torchrun's variables.
    if dist.is_initialized():
        import deepspeed

        deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)


def _import_deepspeed() -> None:
    """Its autotuner, which is not used, imports MLflow where that is installed: seconds of every rank."""
    if "mlflow" in sys.modules:
        return
    # None in this place is Python's word for "cannot be imported", which the autotuner is ready for.
    sys.modules["mlflow"] = None  # type: ignore[assignment]
    try:
        import deepspeed  # noqa: F401
    finally:
        del sys.modules["mlflow"]


def extensions_folder() -> Path:
    """Where compiled extensions are kept: the environment if it can be written, else the user's cache."""
    if os.access(sys.prefix, os.W_OK):
        return Path(sys.prefix) / "torch_extensions"
    return Path.home() / ".cache" / "spml_dist" / "torch_extensions"


class DeepSpeedEngine:
    """DeepSpeed's engine around the network, with the release's SGD as client optimiser; see `Engine`.

    Its state is a dict of whole tensors by name, whatever the stage and the number of workers, so that a
    run goes on with another number of workers. Reading it and putting it back follow DeepSpeed's own
    accessors; what they leave out is done here, with the reason beside it.
    """

    def __init__(self, model: nn.Module, config: Config, state: EngineState | None = None):
        """A collective. state: what `state` returned, of any engine with any number of workers."""
        import deepspeed

        if state:
            # Before DeepSpeed derives low-precision copies and each rank's part from the parameters.
            model.load_state_dict(state["weights"])
        self._stage = config.engine.zero_stage
        self.finite_check = FiniteCheck(model, next(model.parameters()).device)
        settings = config.optimizer
        self._optimizer = optimizer_of(model, settings, self.finite_check.stop)
        self._engine, *_ = deepspeed.initialize(
            model=model, optimizer=self._optimizer, config=_settings(config)
        )
        self.device = self._engine.device
        self.clipping = Clipping(settings, self.device)
        if state:
            self._restore(state)

    def __call__(self, *inputs: Any) -> tuple[Tensor, Tensor]:
        return self._engine(*inputs)

    def backward(self, loss: Tensor) -> None:
        self._engine.backward(loss)  # which divides it by the number of micro-batches

    def step(self) -> None:
        if self._engine.is_gradient_accumulation_boundary():
            self.clipping.apply(*divided_by_part(self._gradients()), divided=self._stage > 0)
        self._engine.step()

    def _gradients(self) -> Iterator[tuple[bool, Tensor]]:
        """(whether it is the classifier's, the gradient that the step will take), of this rank: whole at
        stage 0, else its share. DeepSpeed has averaged them over the ranks in the last backward pass, and
        takes what stands there: in its step it only flattens it."""
        names = {parameter: name for name, parameter in self._engine.module.named_parameters()}
        if self._stage == 0:
            for parameter, name in names.items():
                if parameter.grad is not None:
                    yield is_classifier(name), parameter.grad
            return
        inner = self._engine.optimizer
        groups = inner.fp16_groups if self._stage == 3 else inner.bit16_groups
        for number, parameters in enumerate(groups):
            for gradient in inner.averaged_gradients[number]:
                yield is_classifier(names[parameters[0]]), gradient

    def set_rate(self, rate: float) -> None:
        set_rate(self._engine.optimizer, rate)

    def state(self) -> EngineState:
        """Weights are float32 (float64) in a 16-bit training too: those that the optimiser moves."""
        import deepspeed
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        module, parameters = self._engine.module, trainable(self._engine.module)
        if self._stage == 0:
            weights = {name: value.detach() for name, value in module.state_dict().items()}
            return {"weights": weights, **state_of(self._optimizer, parameters)}
        # At stage 3 a parameter is an empty tensor outside this block. Buffers are whole on every rank.
        with deepspeed.zero.GatheredParameters(list(module.parameters()), enabled=self._stage == 3):
            weights = {name: value.detach().clone() for name, value in module.state_dict().items()}
        weights = {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
        self._link_state()
        kept: dict[str, dict[str, Tensor]] = {kind: {} for kind in self._optimizer.KEPT}
        # In the order of the names on every rank: each of these reads is a collective.
        for name, parameter in parameters.items():
            weights[name] = safe_get_full_fp32_param(parameter).clone()
            for kind, key in self._optimizer.KEPT.items():
                kept[kind][name] = safe_get_full_optimizer_state(parameter, key).clone()
        states = self._engine.optimizer.optimizer.state.values()
        return {"weights": weights, **with_steps(kept, next(iter(states)).get("step"))}

    def _restore(self, state: EngineState) -> None:
        """The optimiser's state, and the weights as float32, where DeepSpeed keeps them."""
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        parameters = trainable(self._engine.module)
        if self._stage == 0:
            set_state(self._optimizer, parameters, state)
            return
        inner = self._engine.optimizer
        split = "fp32_partitioned_groups_flat" if self._stage == 3 else "single_partition_of_fp32_groups"
        for flat in getattr(inner, split):
            # DeepSpeed's accessors want it to exist; a step that made it would apply weight decay.
            made = {key: torch.zeros_like(flat.data) for key in self._optimizer.KEPT.values()}
            if "second_moment" in state:
                made["step"] = state["second_moment"][STEPS].to(flat.device, copy=True)
            inner.optimizer.state[flat] |= made
        self._link_state()
        for name, parameter in parameters.items():
            weight = state["weights"][name].to(self.device)
            kept = {key: state[kind][name].to(self.device) for kind, key in self._optimizer.KEPT.items()}
            if self._stage == 3:
                safe_set_local_fp32_param(parameter, _rank_share(parameter, weight))
                for key, value in kept.items():
                    safe_set_local_optimizer_state(parameter, _rank_share(parameter, value), key)
            else:
                safe_set_full_fp32_param(parameter, weight)
                for key, value in kept.items():
                    safe_set_full_optimizer_state(parameter, value, key)

    def _link_state(self) -> None:
        """DeepSpeed links parameters to the optimiser's state at the first group's step and never again,
        when the other groups have none yet: one rank would fail and the others wait for ever."""
        inner = self._engine.optimizer
        if self._stage in (1, 2):
            inner._hp_optimizer_states_linked = False
            inner._lazy_init_hp_params_optimizer_state()


def _settings(config: Config) -> dict[str, Any]:
    """DeepSpeed's own configuration."""
    micro = config.stream.batch // config.engine.accumulation
    # Apart, `Clipping` does it before DeepSpeed's step, whose own default is 1.
    limit = config.optimizer.clip_norm if config.optimizer.clip == "together" else None
    return {
        # DeepSpeed wants equal parts; ours may be ragged. It uses the number for nothing else here.
        "train_micro_batch_size_per_gpu": max(1, micro // dist.get_world_size()),
        "gradient_accumulation_steps": config.engine.accumulation,
        # Overlapped, they would run on a group of their own beside those of batch norms and bank: two
        # communicators at once can wait for each other.
        "zero_optimization": {"stage": config.engine.zero_stage, "overlap_comm": False},
        # It knows its own and torch's optimisers; the release's SGD is neither.
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": limit or 0.0,
        "bf16": {"enabled": config.engine.precision == "bfloat16"},
        "steps_per_print": sys.maxsize,
        "wall_clock_breakdown": False,
    }


def _rank_share(parameter: nn.Parameter, whole: Tensor) -> Tensor:
    """This rank's part of a value, as ZeRO 3 cuts it: flat, padded with zeros to equal parts."""
    size = cast(Any, parameter).ds_tensor.numel()  # DeepSpeed's own attribute
    flat = whole.new_zeros(size * dist.get_world_size())
    flat[: whole.numel()] = whole.flatten()
    return flat[dist.get_rank() * size :][:size]


def compile_extension() -> None:
    """Compile DeepSpeed's CPU extension now rather than in the first run."""
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(extensions_folder()))
    os.environ["DS_ACCELERATOR"] = "cpu"
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    ShareMemCommBuilder().load(verbose=False)


if __name__ == "__main__":
    compile_extension()
