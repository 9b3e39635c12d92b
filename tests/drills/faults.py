"""What goes wrong in one rank, once: armed in its process before it trains."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from spml_dist import comm
from spml_dist.bank import exchange, snapshot_copy
from spml_dist.run_folder import LATEST
from spml_dist.training import checkpoint_writer, loop

PLACES = {
    "forward": 1,
    "collective": 1,
    "publish": 1,
    "engine_file": 0,
    "bank_file": 1,
    "before_its_name": 0,
}
"""where a rank can die, and which one does: between two layers of the network; while all ranks add numbers
up; while segments travel to the bank; with half of a checkpoint's file written, of rank 0 and of rank 1;
between the renaming of a whole checkpoint and the file that names the newest"""


def die() -> None:
    """As a machine without power does: nothing is closed, nobody is told."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(place: str, step: int, act: Callable[[], None] = die) -> None:
    """Call act() in this process when it first comes to the place in a step (from 0), or in the first
    checkpoint after so many steps."""
    current = _Step(step)
    arming = {
        "forward": _in_forward,
        "collective": _in_a_collective,
        "publish": _in_a_publish,
        "engine_file": _in_an_engine_file,
        "bank_file": _in_a_bank_file,
        "before_its_name": _before_its_name,
    }
    arming[place](current, act)


class _Step:
    """Which step is being made."""

    def __init__(self, awaited: int):
        self._now = -1
        self._awaited = awaited
        make_step = loop.make_step

        def watched(run, step, *rest):
            self._now = step
            return make_step(run, step, *rest)

        loop.make_step = watched

    def come(self) -> bool:
        return self._now >= self._awaited


def _in_forward(current: _Step, act: Callable[[], None]) -> None:
    def hook(module: nn.Module, inputs, output) -> None:
        if current.come() and isinstance(module, nn.Conv2d):
            act()

    nn.modules.module.register_module_forward_hook(hook)


def _in_a_collective(current: _Step, act: Callable[[], None]) -> None:
    sum_all = comm.sum_all

    def broken(tensor: Tensor) -> Tensor:
        if current.come() and dist.is_initialized():
            dist.all_reduce(torch.clone(tensor), async_op=True)
            act()
        return sum_all(tensor)

    comm.sum_all = broken


def _in_a_publish(current: _Step, act: Callable[[], None]) -> None:
    class Broken:
        def __getattr__(self, name: str):
            return getattr(dist, name)

        def all_to_all_single(self, *given, **options):
            sent = dist.all_to_all_single(*given, **options)
            if current.come():
                act()
            return sent

    exchange.dist = Broken()


def _in_an_engine_file(current: _Step, act: Callable[[], None]) -> None:
    checkpoint_writer.save_file = _half(checkpoint_writer.save_file, current, act)


def _in_a_bank_file(current: _Step, act: Callable[[], None]) -> None:
    snapshot_copy.save_file = _half(snapshot_copy.save_file, current, act)


def _half(save_file: Callable, current: _Step, act: Callable[[], None]) -> Callable:
    def broken(tensors, path: Path, *rest) -> None:
        save_file(tensors, path, *rest)
        if current.come():
            os.truncate(path, path.stat().st_size // 2)
            act()

    return broken


def _before_its_name(current: _Step, act: Callable[[], None]) -> None:
    replacing = checkpoint_writer.replacing

    def broken(path: Path, **options):
        if current.come() and path.name == LATEST:
            act()
        return replacing(path, **options)

    checkpoint_writer.replacing = broken
