"""What a worker sets for its process before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest
import threadpoolctl
import torch

from spml_dist.config.models import EngineConfig
from spml_dist.training.device import device_of, settle


@pytest.fixture(autouse=True)
def restored():
    """Everything as the other tests of this process want it."""
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = torch.get_num_threads(), cudnn.allow_tf32, cublas.allow_tf32
    with threadpoolctl.threadpool_limits(None):
        yield
    torch.set_num_threads(before[0])
    cudnn.allow_tf32, cublas.allow_tf32 = before[1:]
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("tf32", "convolutions", "others"),
    [("off", False, False), ("convolutions", True, False), ("all", True, True)],
)
def test_which_products_are_rounded(tf32, convolutions, others):
    settle(EngineConfig(tf32=tf32), torch.device("cpu"))
    assert torch.backends.cudnn.allow_tf32 == convolutions
    assert torch.backends.cuda.matmul.allow_tf32 == others


@pytest.mark.parametrize("deterministic", [False, True])
def test_algorithms_that_repeat_themselves_are_asked_for(deterministic, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    settle(EngineConfig(deterministic=deterministic), torch.device("cpu"))
    assert torch.are_deterministic_algorithms_enabled() == deterministic


def test_threads_bind_numpy_too():
    np.ones((2, 2)) @ np.ones((2, 2))
    settle(EngineConfig(threads=1), torch.device("cpu"))
    assert torch.get_num_threads() == 1
    assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info()} == {1}


def test_ranks_share_the_cores_that_their_job_may_use(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(6)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    settle(EngineConfig(threads=0), torch.device("cpu"))
    assert torch.get_num_threads() == 3


def test_a_cpu_is_taken_where_it_is_asked_for():
    assert device_of("cpu") == torch.device("cpu")
