"""A run does not depend on how many workers make it or who launches them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import payload, work
from tests.spawn import spawn

pytestmark = pytest.mark.timeout(900)

BRIEFLY = [
    "schedule.steps=4",
    "checkpoint.every=1",
    "checkpoint.keep=9",
    "tracking.previews=0",
    "engine.device=cuda",
]
WORKERS = {"alone": 0, "one": 1, "two": 2, "three": 3}
"""of a global batch of four images; alone is without a process group and without DeepSpeed"""


@pytest.fixture(scope="module")
def output(experiment, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()
    for name, count in WORKERS.items():
        # What a launcher has found out for all workers goes before what each would find out for itself.
        runs = [
            payload(experiment(folder, f"{name}-{precision}", *BRIEFLY, f"engine.precision={precision}"))
            | {"device": "cpu"}
            for precision in ("float32", "float64")
        ]
        outcome = spawn(work, count, runs, seconds=400) if count else [work(0, runs)]
        assert outcome == [[{"steps": [0, 1, 2, 3], "error": None}] * 2] * max(1, count)
    torch.set_num_threads(threads)
    return folder


def losses(output: Path, name: str) -> list[dict[str, float]]:
    """The loss and its terms, of every step."""
    entries = map(json.loads, (output / name / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in entry.items() if k.startswith("loss")} for entry in entries]


def gradient(output: Path, name: str, step: int) -> torch.Tensor:
    """Momentum after the step, which is the rates times the gradients so far; flat, of the whole network."""
    path = output / name / "checkpoints" / f"step_{step:06d}" / "engine" / "momentum.safetensors"
    return torch.cat([value.flatten().double() for _, value in sorted(load_file(path).items())])


@pytest.mark.parametrize("name", ["one", "two", "three"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 3e-5), ("float64", 1e-11)])
def test_losses_are_those_of_one_process_alone(output, name, precision, tolerance):
    for ours, theirs in zip(
        losses(output, f"{name}-{precision}"), losses(output, f"alone-{precision}"), strict=True
    ):
        assert ours == pytest.approx(theirs, rel=tolerance)


@pytest.mark.parametrize("name", ["one", "two", "three"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("float64", 1e-11)])
def test_so_are_the_gradients(output, name, precision, tolerance):
    # One process uses torch's batch norm: rounded otherwise, a pixel between two clusters may change sides.
    for step in (1, 2):
        ours, theirs = (gradient(output, f"{who}-{precision}", step) for who in (name, "alone"))
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("name", WORKERS)
def test_float64_is_another_number_than_float32_but_not_by_much(output, name):
    once, twice = (losses(output, f"{name}-{precision}")[1]["loss"] for precision in ("float32", "float64"))
    assert once != twice
    assert once == pytest.approx(twice, rel=1e-4)
