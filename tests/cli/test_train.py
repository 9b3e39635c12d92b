"""The path as a user types it: Ray starts, two DeepSpeed workers train, MLflow hears of it."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import redirect_stdout, suppress
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image

from spml_dist import cli
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.stream.plan import Plan

pytestmark = pytest.mark.timeout(1800)

STEPS = 60


def typed(*words: object) -> subprocess.CompletedProcess:
    """`spml-dist WORDS` in a process of its own, as Ray wants it."""
    command = [sys.executable, "-m", "spml_dist", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def words(experiment, sample: Path, output: Path) -> list[str]:
    """The experiment, on a copy of its training shards."""
    train = shutil.copytree(sample / "train", output / "packed")
    return experiment(output, "tiny", f"data.train={train}", f"schedule.steps={STEPS}")


@pytest.fixture(scope="module")
def damaged(words, output: Path) -> tuple[subprocess.CompletedProcess, str, list[dict]]:
    """A training on a shard with an image that does not decode, which only the second worker meets, in the
    third step; the image's key, and what was logged. Afterwards the shard is whole again."""
    manifest = read_manifest(output / "packed")
    shards = [shard.samples for shard in manifest.shards]
    draw = Plan(shards, batch=4, seed=235, window_shards=16).part(2, rank=1, world=2)[0]
    path = output / "packed" / manifest.shards[draw.shard].url
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        image = [member for member in tar if member.name.endswith(".jpg")][draw.index]
    start, stop = image.offset_data, image.offset_data + image.size
    path.write_bytes(whole[:start] + bytes(image.size) + whole[stop:])
    try:
        done = typed("train", *words)
    finally:
        path.write_bytes(whole)
    return done, f"{path}: {image.name.removesuffix('.jpg')}", logged(output / "tiny")


@pytest.fixture(scope="module")
def stopped(damaged, words, output: Path) -> tuple[int, str, str, int]:
    """The same command again, with a SIGTERM to each of its processes once it is under way, as srun and
    scancel send it: exit status, output, and the last step. Afterwards none of them is left."""
    command = [sys.executable, "-m", "spml_dist", "train", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes, start_new_session=True)
    deadline = time.monotonic() + 600
    while len(logged(output / "tiny")) < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    started = psutil.Process(process.pid).children(recursive=True)
    for each in (*started, process):
        with suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert not psutil.wait_procs(started, timeout=60)[1]
    return process.returncode, out, err, logged(output / "tiny")[-1]["step"]


@pytest.fixture(scope="module")
def trained(stopped, words, output: Path) -> tuple[Path, str]:
    """The run folder and what the same command printed that goes on without Ray, in this process."""
    threads = torch.get_num_threads()
    with redirect_stdout(io.StringIO()) as printed:
        assert cli.main(["train", *words, "--alone"]) == 0
    torch.set_num_threads(threads)
    return output / "tiny", printed.getvalue()


@pytest.fixture(scope="module")
def evaluated(trained) -> Path:
    run = trained[0]
    for words in ((), ("--oracle", "--json", run / "oracle.json")):
        assert cli.main([str(word) for word in ("evaluate", run, "--split", "val", *words)]) == 0
    return run


def logged(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_damaged_image_ends_all_workers_with_one_line(damaged):
    """Only the worker that reads it fails; the other one must not wait for ever."""
    done, image, entries = damaged
    assert done.returncode == 2
    assert done.stderr.startswith(f"spml-dist: error: {image}") and done.stderr.count("\n") == 1, done.stderr
    assert [entry["step"] for entry in entries] == [1, 2]


def test_once_the_shard_is_whole_the_same_command_goes_on_after_the_last_checkpoint(stopped):
    assert "resuming from step_000002" in stopped[1]
    assert re.findall(r"step +(\d+)  loss", stopped[1])[:3] == ["3", "4", "5"]


def test_a_signal_saves_and_leaves_with_a_status_of_its_own(stopped):
    status, _, error, step = stopped
    assert status == 75
    assert 5 <= step < STEPS
    asked, *_, answer = error.splitlines()
    assert "Traceback" not in error
    assert asked.startswith("saving and stopping after this step")
    assert answer == f"spml-dist: saved step {step} and stopped; the same command goes on"


def test_one_process_alone_goes_on_from_there_to_the_end(trained, stopped):
    run, printed = trained
    assert f"resuming from step_{stopped[3]:06d}" in printed
    assert [entry["step"] for entry in logged(run)] == [*range(1, STEPS + 1)]
    assert not (run / "stop").exists()


def test_the_same_command_finds_nothing_left_to_do(trained, words, capsys):
    assert cli.main(["train", *words]) == 0
    assert f"already trained to step {STEPS}" in capsys.readouterr().out


def test_a_pack_that_was_made_anew_is_not_what_the_run_was_trained_on(trained, words, capsys):
    state = trained[0] / "checkpoints" / f"step_{STEPS:06d}" / "stream.json"
    message = state.read_text()
    state.write_text(json.dumps(json.loads(message) | {"fingerprint": "of other tars"}))
    try:
        assert cli.main(["train", *words]) == 2
    finally:
        state.write_text(message)
    assert "packed anew or changed since the checkpoint" in capsys.readouterr().err


def test_evaluation_leaves_numbers_images_and_a_report(evaluated):
    result = json.loads((evaluated / "result.json").read_text())
    assert result["split"] == "val" and result["images"] == 4 and result["step"] == STEPS
    assert 0 <= result["miou"] == result["readouts"]["classifier"]["miou"] <= 1
    assert "neighbours" in result["readouts"]
    assert "neighbours_oracle" in json.loads((evaluated / "oracle.json").read_text())["readouts"]
    report = (evaluated / "report.html").read_text()
    assert "data:image" in report and not re.search(r'(src|href)="(https?:)?//', report)
    assert (evaluated / "pictures" / "val.png").exists()


def test_one_mlflow_run_holds_parameters_metrics_and_files(evaluated, output):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("spml").experiment_id])
    assert found.info.run_id == json.loads((evaluated / "mlflow.json").read_text())["run_id"]
    assert found.info.status == "FINISHED"
    assert found.data.params["relations.annotation.concentration"] == "6.0"
    metrics = {"train/loss", "train/loss/annotation", "eval/val/miou", "eval/val_oracle/miou"}
    assert metrics <= set(found.data.metrics)
    assert any(name.startswith("system/") for name in found.data.metrics)
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert {3, 4, 5, 6} <= {point.step for point in history}
    folders = {"": {"config.yaml"}, "previews": {f"previews/step_{STEPS:06d}.png"}}
    folders["evaluation"] = {f"evaluation/{name}" for name in ("result.md", "val.png", "report.html")}
    for folder, files in folders.items():
        assert files <= {file.path for file in client.list_artifacts(found.info.run_id, folder)}


def test_a_run_folder_of_another_configuration_is_refused_by_its_keys(trained, words, capsys):
    assert cli.main(["train", *words, "optimizer.lr=0.5"]) == 2
    error = capsys.readouterr().err
    assert "optimizer.lr (0.02 there, 0.5 here)" in error and error.count("\n") == 1


def test_a_run_that_never_made_a_step_does_not_keep_its_folder(tmp_path, experiment, capsys):
    """Such as one whose backbone is misspelt: only a worker can tell."""
    wrong, right = (
        experiment(tmp_path, "tiny", "schedule.steps=3", f"model.backbone={name}", "tracking.previews=0")
        for name in ("resnet10q", "resnet10t")
    )
    threads = torch.get_num_threads()
    assert cli.main(["train", *wrong, "--alone"]) == 2
    assert "resnet10t?" in capsys.readouterr().err
    assert cli.main(["train", *right, "--alone"]) == 0
    torch.set_num_threads(threads)


def test_an_unwritable_run_folder_is_one_line(tmp_path, experiment, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["train", *experiment(tmp_path / "file", "tiny")]) == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error and "output=" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.train=/nowhere", "manifest.json: no such file"),
        ("optimiser.lr=1", "did you mean optimizer?"),
        ("relations.cooccurrence.ignore_classes=[9]", "class ids are 0 to 8"),
    ],
)
def test_a_mistake_claims_no_run_folder(change, words, tmp_path, experiment, capsys):
    assert cli.main(["train", *experiment(tmp_path / "runs", "tiny", change)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_images_without_classes_are_not_trained_on(tmp_path, experiment, capsys):
    images = tmp_path / "pictures"
    images.mkdir()
    for name in "abcd":
        Image.new("RGB", (40, 30), "red").save(images / f"{name}.jpg")
    assert cli.main(["pack", "images", str(images), "--out", str(tmp_path / "packed")]) == 0
    capsys.readouterr()
    splits = [f"data.{split}={tmp_path}/packed" for split in ("train", "val")]
    assert cli.main(["train", *experiment(tmp_path / "runs", "tiny", *splits)]) == 2
    error = capsys.readouterr().err
    assert "a pack without classes" in error and "--classes" in error and error.count("\n") == 1
