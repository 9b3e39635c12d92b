"""The scripts of examples/ do what they say, on generated scenes of 64 pixels."""

from __future__ import annotations

import importlib.util
import math
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import spml_dist

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(experiment, tmp_path_factory) -> tuple[Path, list[str]]:
    """A run of two steps that Python trained, and the lines that it was shown."""
    file, *overrides = experiment(
        tmp_path_factory.mktemp("runs"), "tiny", "schedule.steps=2", "schedule.warmup=0"
    )
    threads, lines = torch.get_num_threads(), list[str]()
    folder = spml_dist.train(file, overrides, alone=True, show=lines.append)
    torch.set_num_threads(threads)
    return folder, lines


def test_every_example_is_tried_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        *("own_loop", "bank_in_your_trainer", "plain_stream", "evaluate")
    }


def test_a_loop_of_one_s_own_learns(sample):
    losses = example("own_loop").train(f"{sample}/train", steps=12)
    assert len(losses) == 12 and all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-4:]) < sum(losses[:4])


def test_the_bank_serves_another_trainer_and_is_saved(sample, tmp_path, capsys):
    bank = example("bank_in_your_trainer").train(f"{sample}/train", tmp_path / "bank", steps=5)
    losses = [float(line.split()[3]) for line in capsys.readouterr().out.splitlines()]
    assert losses[0] == 0 < min(losses[1:])
    assert 0 < len(bank) == len(spml_dist.MemoryBank.load(tmp_path / "bank"))


def test_a_plain_loop_reads_batches_and_goes_on_where_it_stopped(sample):
    """Twelve images in batches of four: three steps before the break are an epoch, three after it another."""
    names = example("plain_stream").read(f"{sample}/train")
    for epoch in (names[:3], names[3:]):
        assert len({key for keys in epoch for key in keys}) == 12
    stream = spml_dist.Stream(f"{sample}/train", batch=4, crop=64, seed=1)
    straight = [batch.keys for batch in islice(stream, 6)]
    assert names == straight


def test_a_run_trained_from_python_is_a_run_folder(run):
    folder, lines = run
    assert (folder / "export" / "model.json").exists() and (folder / "report.html").exists()
    assert lines[0] == f"run folder {folder}"
    assert any(line.startswith("step      2  loss") for line in lines)


def test_a_run_is_evaluated_from_python(run):
    result = example("evaluate").report(str(run[0]))
    assert set(result["readouts"]) == {"classifier", "neighbours"}
    assert (run[0] / "result.json").exists()


def test_a_run_labels_an_image_from_python(run, capsys):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    labels = example("evaluate").label(str(run[0]), image)
    assert labels.shape == (50, 70) and labels.dtype == np.uint8
    assert "% of the pixels" in capsys.readouterr().out
