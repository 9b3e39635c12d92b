"""Run a function on several processes that talk over gloo, and bring back what each returned."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def spawn(function: Callable, world: int, *args: Any, seconds: float = 120) -> list[Any]:
    """`[function(rank, *args) for rank in range(world)]`, each in a process of its own.

    function: importable from a module. A child's traceback, or a time-out, fails the caller.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Children start from a server that has everything loaded: seconds of a processor each are saved.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(["spml_dist.training.loop", "timm", "deepspeed"])
        children = [
            context.Process(target=_child, args=(function, rank, world, folder, seconds, args))
            for rank in range(world)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(seconds)
        late = [rank for rank, child in enumerate(children) if child.is_alive()]
        for child in children:
            child.kill()
            child.join()
        troubles = [path.read_text() for path in sorted(Path(folder).glob("*.txt"))]
        if troubles:
            raise AssertionError("\n".join(troubles))
        if late:
            raise TimeoutError(f"ranks {late} still ran after {seconds} s")
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world)]


def _child(function, rank, world, folder, seconds, args) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    try:
        # A file to meet at: a port that is free now may be taken by another test in a moment.
        meeting = {"init_method": f"file://{folder}/meeting", "timeout": timedelta(seconds=seconds)}
        dist.init_process_group("gloo", rank=rank, world_size=world, **meeting)
        torch.save(function(rank, *args), Path(folder) / f"{rank}.pt")
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        (Path(folder) / f"{rank}.txt").write_text(f"rank {rank}:\n{traceback.format_exc()}")
        os._exit(1)
