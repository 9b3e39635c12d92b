"""engine.device of a command that uses a trained network."""

from __future__ import annotations

import pytest
import torch

from spml_dist.errors import ConfigError
from spml_dist.inference.device import resolve_device


@pytest.mark.parametrize(("there", "auto"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_a_gpu_if_there_is_one(monkeypatch, there, auto):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert (resolve_device("auto"), resolve_device("cpu")) == (auto, "cpu")


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("cuda") == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ConfigError, match=r"engine\.device \(got cuda\); PyTorch sees no GPU here: set it to"
    ):
        resolve_device("cuda")
