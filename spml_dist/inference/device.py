"""Where a trained network looks at images, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """PyTorch computes with so many threads in the block; None = with as many as before.

    Sums of floats depend on who adds what: what must not depend on the number of workers takes one in each.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
