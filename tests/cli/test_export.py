"""`spml-dist export`: what is printed and refused, and a model in MLflow that its own server serves."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import cv2
import numpy as np
import pytest

from spml_dist import cli
from spml_dist.config import dump, load
from spml_dist.inference.trained_model import load_model
from spml_dist.model import export
from spml_dist.model.segmenter import build
from tests.servers import dead_url

SMALL = Path(__file__).parents[1] / "small.yaml"
CLASSES = ["sea", "land"]

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "toy"
    words = ["model.embedding_dim=8", f"tracking.uri=sqlite:///{folder.parent}/mlflow.db", "name=toy"]
    config = load(SMALL, words)
    network = build(config.model, len(CLASSES), seed=0)
    export.save(network.state_dict(), folder / "export", config.model, CLASSES, None, 40)
    (folder / "config.yaml").write_text(dump(config))
    return folder


def exported(capsys, *words: object) -> tuple[int, str, str]:
    status = cli.main(["export", *map(str, words)])
    return status, *capsys.readouterr()


def test_a_folder_is_written_once(run, tmp_path, capsys):
    out = tmp_path / "away"
    assert exported(capsys, run, "--out", out) == (0, f"wrote {out}\n", "")
    assert exported(capsys, run, "--out", out) == (0, f"already there: {out}\n", "")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--register", "scenes"], "--register (got scenes); it goes with --mlflow"),
        (["--mlflow", "--format", "onnx"], "--mlflow (got --format onnx); it takes safetensors"),
        (["--out", "{run}"], "exists and holds no export"),
    ],
)
def test_a_wrong_call_is_one_line(run, capsys, words, problem):
    status, out, error = exported(capsys, run, *(word.format(run=run) for word in words))
    assert (status, out, error.count("\n")) == (2, "", 1) and problem in error


def test_what_is_no_run_is_named(tmp_path, capsys):
    assert "is no run folder" in exported(capsys, tmp_path)[2]


@contextmanager
def served(model: str, uri: str) -> Iterator[str]:
    """MLflow's scoring server for a registered model."""
    port = dead_url().rpartition(":")[2]
    command = [
        *(sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", model),
        *("--env-manager", "local", "--host", "127.0.0.1", "--port", port, "--workers", "1"),
    ]
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "PATH": beside}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as server:
        try:
            address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
            while True:
                assert server.poll() is None, server.stderr.read().decode()
                assert time.monotonic() < deadline
                try:
                    urllib.request.urlopen(f"{address}/ping", timeout=5)
                    break
                except URLError:
                    time.sleep(0.2)
            yield address
        finally:
            server.terminate()


def test_a_registered_model_is_served_and_labels_a_picture(run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, error = exported(capsys, run, "--mlflow", "--register", "scenes")
    assert status == 0, error
    assert out.splitlines()[-1] == "logged to MLflow as models:/scenes/1"
    assert list(tmp_path.iterdir()) == [], "what it keeps lies where the run's experiment has it"
    assert list((run.parent / "mlartifacts").rglob("MLmodel"))
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    picture = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    body = json.dumps({"dataframe_records": [{"image": base64.b64encode(picture).decode()}]}).encode()
    with served("models:/scenes/1", f"sqlite:///{run.parent}/mlflow.db") as address:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{address}/invocations", body, headers)
        (answer,) = json.load(urllib.request.urlopen(request, timeout=60))["predictions"]
    labels = cv2.imdecode(np.frombuffer(base64.b64decode(answer["labels"]), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(labels, load_model(run, "cpu")(image))
    assert answer["classes"] == CLASSES
