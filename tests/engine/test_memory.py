"""The bank of a run: what a machine cannot do is said before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spml_dist.config import load
from spml_dist.engine import memory
from spml_dist.errors import RunError

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def test_an_index_on_a_gpu_that_faiss_does_not_see_is_refused():
    config = load(QUICKSTART, ["bank.gpu_index=true"])
    with pytest.raises(RunError, match="FAISS sees no GPU"):
        memory.build(config, 3, torch.device("cuda", 0))


def test_on_a_cpu_the_same_configuration_searches_the_file_in_main_memory():
    bank = memory.build(load(QUICKSTART, ["bank.gpu_index=true"]), 3, torch.device("cpu"))
    assert bank.indexes and len(bank) == 0
