"""Where a trained network looks at images."""

from __future__ import annotations

import torch

from spml_dist.errors import ConfigError


def resolve_device(device: str) -> str:
    """The device that engine.device names: auto takes a GPU if there is one.

    Raises ConfigError for cuda where PyTorch sees no GPU.
    """
    gpu = torch.cuda.is_available()
    if device == "cuda" and not gpu:
        raise ConfigError("engine.device", device, "PyTorch sees no GPU here: set it to auto or cpu")
    return device.replace("auto", "cuda" if gpu else "cpu")
