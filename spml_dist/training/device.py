"""Where a worker computes, and how its libraries do there."""

from __future__ import annotations

import os

import threadpoolctl
import torch

from spml_dist import comm
from spml_dist.config.models import EngineConfig


def device_of(name: str) -> torch.device:
    """What `engine.device` means for this process on this machine."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % max(1, torch.cuda.device_count()))


def cores() -> int:
    """Of this machine, those that this process may compute on: a job's, where a job has some of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def settle(engine: EngineConfig, device: torch.device) -> None:
    """Set threads and number formats for this process."""
    # Threads beyond the cores there are wait for one another, so its ranks share them out.
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", comm.world()))
    threads = engine.threads or max(1, cores() // beside)
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads)  # of numpy's, scipy's and FAISS's own
    torch.backends.cudnn.allow_tf32 = engine.tf32 != "off"
    torch.backends.cuda.matmul.allow_tf32 = engine.tf32 == "all"
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL's collectives compute on the current one
        # All batches have one size, so that trying cuDNN's algorithms pays; which wins may change by the run.
        torch.backends.cudnn.benchmark = not engine.deterministic
    if engine.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS begins
        torch.use_deterministic_algorithms(True, warn_only=True)
