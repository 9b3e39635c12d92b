"""The DeepSpeed engine: the only file that knows DeepSpeed."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from spml_dist.config import Config
from spml_dist.engine.optimizer import Sgd, parameter_groups
from spml_dist.model.segmenter import Segmenter


def prepare(device: torch.device, say: Callable[[str], None]) -> None:
    """Join DeepSpeed to the process group. On a CPU it compiles one small extension at its first use,
    which is kept beside the Python environment."""
    cache = Path(os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(extensions_folder())))
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    if device.type == "cpu" and not any(cache.glob("**/deepspeed_shm_comm.so")):
        say("DeepSpeed compiles its CPU extension once; this takes up to a minute")
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    logging.getLogger("deepspeed").setLevel(logging.ERROR)
    if dist.is_initialized():
        deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)


def extensions_folder() -> Path:
    """Where compiled extensions are kept: the environment if it can be written, else the user's cache."""
    if os.access(sys.prefix, os.W_OK):
        return Path(sys.prefix) / "torch_extensions"
    return Path.home() / ".cache" / "spml_dist" / "torch_extensions"


def engine(model: Segmenter, config: Config):
    """A DeepSpeed engine around the model with the release's SGD as client optimiser."""
    import deepspeed

    optimizer = Sgd(parameter_groups(model, config.optimizer), config.optimizer.lr, config.optimizer.momentum)
    micro = config.stream.batch // config.engine.accumulation
    settings = {
        # DeepSpeed wants equal parts; ours may be ragged, and it uses these numbers for nothing else here.
        "train_micro_batch_size_per_gpu": max(1, micro // dist.get_world_size()),
        "gradient_accumulation_steps": config.engine.accumulation,
        "zero_optimization": {"stage": config.engine.zero_stage},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": config.engine.precision == "bfloat16"},
        "steps_per_print": sys.maxsize,
        "wall_clock_breakdown": False,
    }
    wrapped, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    return wrapped


def set_rate(wrapped, rate: float) -> None:
    """Every group's learning rate: its multiplier times the scheduled rate."""
    for group in wrapped.optimizer.param_groups:
        group["lr"] = rate * group["multiplier"]


def save(wrapped, folder: Path) -> None:
    """The engine's state as one folder; a collective."""
    wrapped.save_checkpoint(str(folder.parent), tag=folder.name, save_latest=False)


def load(wrapped, folder: Path) -> None:
    """Put back what `save` wrote; a collective."""
    path, _ = wrapped.load_checkpoint(str(folder.parent), tag=folder.name)
    if path is None:
        raise FileNotFoundError(folder)


def full_state(wrapped, zero_stage: int) -> dict[str, torch.Tensor]:
    """The whole model's state dict on every rank; a collective with ZeRO stage 3."""
    if zero_stage < 3:
        return wrapped.module.state_dict()
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(wrapped.module.parameters())):
        return {name: value.detach().clone() for name, value in wrapped.module.state_dict().items()}


def compile_extension() -> None:
    """Compile DeepSpeed's CPU extension now rather than in the first run."""
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(extensions_folder()))
    os.environ["DS_ACCELERATOR"] = "cpu"
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    ShareMemCommBuilder().load(verbose=False)


if __name__ == "__main__":
    compile_extension()
