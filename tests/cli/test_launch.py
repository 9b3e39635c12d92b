"""The same training without Ray: under torchrun, and in one process alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spml_dist import cli

pytestmark = pytest.mark.timeout(900)

TORCHRUN = [
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--rdzv-backend=c10d",
    "--rdzv-endpoint=localhost:0",
]


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def under_torchrun(experiment, output: Path) -> subprocess.CompletedProcess:
    return torchrun("train", *experiment(output, "torchrun"))


def torchrun(*verb: str) -> subprocess.CompletedProcess:
    words = [*TORCHRUN, "-m", "spml_dist", *verb]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment,
    )


@pytest.fixture(scope="module")
def alone(experiment, output: Path) -> None:
    threads = torch.get_num_threads()
    assert cli.main(["train", *experiment(output, "alone"), "data.val=null", "--alone"]) == 0
    torch.set_num_threads(threads)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_torchruns_processes_are_the_workers_and_the_first_one_speaks(under_torchrun, output: Path):
    assert under_torchrun.returncode == 0, under_torchrun.stderr
    assert under_torchrun.stdout.count("run folder") == 1
    assert under_torchrun.stdout.count("step      6  loss") == 1
    assert (output / "torchrun" / "export" / "model.json").exists()


def test_a_classifier_is_trained_by_torchruns_processes_too(under_torchrun, output: Path):
    given = ("classifier.steps=1", "classifier.batch=4", "classifier.warmup=0", "tracking.previews=0")
    process = torchrun("classify", str(output / "torchrun"), *given)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("run folder") == process.stdout.count("trained; evaluate with") == 1


def test_the_losses_are_the_same(under_torchrun, alone, output: Path):
    ours, theirs = losses(output / "torchrun"), losses(output / "alone")
    assert len(ours) == 6
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_run_begun_under_torchrun_is_finished_for_every_launcher(
    under_torchrun, experiment, output, capsys
):
    words = experiment(output, "torchrun", "engine.workers=1", "engine.zero_stage=1")
    assert cli.main(["train", *words, "--alone"]) == 0
    assert "already trained to step 6" in capsys.readouterr().out


def test_torchrun_finds_nothing_left_to_do_either(under_torchrun, experiment, output):
    """No process waits for another one that has nothing to join for."""
    again = torchrun("train", *experiment(output, "torchrun"))
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("already trained to step 6") == 1 and "loss" not in again.stdout


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("checkpoints/latest", b"", "latest names no checkpoint"),
        ("checkpoints/latest", b"step_000003\n", "step_000003 is missing"),
        ("checkpoints/step_000006/engine/weights.safetensors", b"cut", "weights.safetensors cannot be read"),
        ("export/model.json", b"{", "model.json cannot be read"),
    ],
)
def test_damage_to_a_finished_run_is_told(alone, experiment, output, capsys, file, content, message):
    path = output / "alone" / file
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        assert cli.main(["train", *experiment(output, "alone"), "data.val=null", "--alone"]) == 2
    finally:
        path.write_bytes(before)
    outcome = capsys.readouterr().err
    assert message in outcome and "remove" in outcome and outcome.count("\n") == 1


def test_a_finished_run_needs_no_checkpoints(alone, experiment, output, capsys):
    (output / "alone" / "checkpoints").rename(output / "aside")
    try:
        assert cli.main(["train", *experiment(output, "alone"), "data.val=null", "--alone"]) == 0
    finally:
        (output / "aside").rename(output / "alone" / "checkpoints")
    assert "already trained to step 6" in capsys.readouterr().out


def test_alone_refuses_what_only_deepspeed_does(experiment, output, capsys):
    words = experiment(output, "half", "engine.precision=bfloat16", "engine.zero_stage=1")
    assert cli.main(["train", *words, "--alone"]) == 2
    error = capsys.readouterr().err
    assert "engine.precision" in error and "--alone" in error and error.count("\n") == 1
    assert not (output / "half").exists()
