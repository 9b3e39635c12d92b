"""A compiled network computes what the eager one does, under both engines, and its parameters keep their
names."""

from __future__ import annotations

import os
from functools import cache
from unittest import mock

import pytest
import torch
from torch import Tensor

from spml_dist.config import Config, load
from spml_dist.model import compiled, segmenter
from spml_dist.training import deepspeed_engine
from spml_dist.training.deepspeed_engine import DeepSpeedEngine
from spml_dist.training.torch_engine import TorchEngine
from tests.conftest import SMALL
from tests.spawn import spawn

CPU = torch.device("cpu")
CLASSES = 4
SMALLEST = (
    "model.backbone=test_resnet",
    "model.feature_level=1",
    "model.embedding_dim=8",
    "model.dilations=[1]",
)

pytestmark = pytest.mark.timeout(1800)  # so long may a compiler take on a busy machine


@cache
def compiler() -> None:
    trouble = compiled.no_compiler(CPU)
    if trouble:
        pytest.skip(f"torch cannot compile here: {trouble}")


def configured(*words: str) -> Config:
    return load(SMALL, [*SMALLEST, *words])


def network(compile: bool) -> segmenter.Segmenter:
    model = segmenter.build(configured().model, CLASSES, 0)
    if compile:
        assert compiled.compile_parts(model) is None
    return model


def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def two_steps(engine) -> dict[str, Tensor]:
    """Both outputs of two steps, and the weights after them."""
    engine.set_rate(0.01)
    seen = {}
    for step in range(2):
        raw, logits = engine(images(), [0, 1])
        seen |= {f"raw {step}": raw.detach().clone(), f"logits {step}": logits.detach().clone()}
        engine.backward(raw.square().mean() + logits.square().mean())
        engine.step()
    return seen | engine.state()["weights"]


def assert_as_eager(ours: dict[str, Tensor], eager: dict[str, Tensor]) -> None:
    assert ours.keys() == eager.keys()  # no _orig_mod. in front
    for name, value in eager.items():
        torch.testing.assert_close(
            ours[name], value, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: name + text
        )


def test_two_steps_are_those_of_the_eager_network():
    compiler()
    eager, ours = (two_steps(TorchEngine(network(each), configured())) for each in (False, True))
    assert not torch.equal(eager["raw 0"], eager["raw 1"])
    assert_as_eager(ours, eager)


def test_under_deepspeed_too():
    compiler()
    ((eager, ours),) = spawn(by_deepspeed, 1, seconds=1500)
    assert_as_eager(ours, eager)


def by_deepspeed(rank: int) -> list[dict[str, Tensor]]:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    deepspeed_engine.prepare(CPU, lambda text: None)
    config = configured("engine.zero_stage=1")
    found = (two_steps(DeepSpeedEngine(network(each), config)) for each in (False, True))
    return [{name: value.detach().clone() for name, value in seen.items()} for seen in found]


def test_where_no_compiler_works_the_network_stays_as_it_is():
    model = network(False)
    with mock.patch.object(torch, "compile", side_effect=RuntimeError("no g++\nat all")):
        assert compiled.compile_parts(model) == "torch finds no compiler that works here (no g++)"
    assert model.backbone._compiled_call_impl is model.head._compiled_call_impl is None


def test_workers_that_share_batch_norms_do_not_compile():
    with mock.patch.object(compiled.comm, "world", lambda: 2):
        trouble = compiled.compile_parts(network(False))
    assert trouble is not None and "batch norms" in trouble
