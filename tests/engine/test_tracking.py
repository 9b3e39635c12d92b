"""Tracking: everything arrives in one MLflow run, and nothing MLflow does reaches the training."""

from __future__ import annotations

import multiprocessing
import socket
import time
from pathlib import Path

import pytest

from spml_dist.engine import tracking
from spml_dist.engine.tracking import Tracker, absolute_uri, log_evaluation
from spml_dist.errors import ConfigError

PATIENT = 120.0


@pytest.fixture(autouse=True)
def quick_to_give_up(monkeypatch):
    monkeypatch.setattr(tracking, "WAITS", (0.05, 0.05))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A database made by two trainings at once: making one takes seconds."""
    address = absolute_uri("sqlite:///deep/down/mlflow.db", tmp_path_factory.mktemp("tracking"))
    other = multiprocessing.get_context("spawn").Process(target=train_briefly, args=(address, "elsewhere"))
    other.start()
    train_briefly(address, "here")
    other.join()
    return address


def train_briefly(uri, name):
    tracker = Tracker(uri, "together", name)
    tracker.metrics(1, {"train/loss": 1.0})
    tracker.finish(seconds=PATIENT)


@pytest.fixture
def dead_uri():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def client_of(uri):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def history(uri, run_id, name) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client_of(uri).get_metric_history(run_id, name)]


def test_parameters_metrics_and_files_arrive(uri, tmp_path):
    picture = tmp_path / "preview.txt"
    picture.write_text("a preview")
    tracker = Tracker(uri, "spml", "all", params={"stream.batch": 8, "data.test": None})
    tracker.metrics(10, {"train/loss": 2.5, "train/lr": 0.1})
    tracker.metrics(20, {"train/loss": 1.5})
    tracker.artifact(picture, "previews")
    tracker.artifact(picture)
    assert tracker.finish(seconds=PATIENT) == {"sent": 7, "unsent": 0, "error": None}

    run = client_of(uri).get_run(tracker.run_id)
    assert (run.info.run_name, run.info.status) == ("all", "FINISHED")
    assert run.data.params == {"stream.batch": "8", "data.test": "None"}
    assert history(uri, tracker.run_id, "train/loss") == [(10, 2.5), (20, 1.5)]
    assert history(uri, tracker.run_id, "train/lr") == [(10, 0.1)]
    stored = client_of(uri).download_artifacts(tracker.run_id, "previews/preview.txt")
    assert Path(stored).read_text() == "a preview"
    top = [entry.path for entry in client_of(uri).list_artifacts(tracker.run_id)]
    assert top == ["preview.txt", "previews"]


def test_artifacts_lie_beside_the_database(uri):
    experiment = client_of(uri).get_experiment_by_name("together")
    beside = Path(uri.removeprefix("sqlite:///")).with_name("mlartifacts")
    assert experiment.artifact_location == beside.as_uri()


def test_a_large_configuration_is_sent_in_the_pieces_mlflow_takes(uri):
    params = {f"key.{number}": number for number in range(230)} | {"long": "x" * 9000}
    tracker = Tracker(uri, "spml", "large", params=params)
    assert tracker.finish(seconds=PATIENT)["unsent"] == 0
    stored = client_of(uri).get_run(tracker.run_id).data.params
    assert len(stored) == 231 and stored["long"] == "x" * 6000


def test_a_restart_goes_on_with_the_same_run(uri):
    first = Tracker(uri, "spml", "restarted", params={"seed": 1})
    first.metrics(1, {"train/loss": 3.0})
    first.finish("FAILED", seconds=PATIENT)
    second = Tracker(uri, "spml", "restarted", run_id=first.run_id, params={"seed": 1, "new": 2})
    second.metrics(2, {"train/loss": 2.0})
    assert second.finish(seconds=PATIENT)["unsent"] == 0

    client = client_of(uri)
    runs = client.search_runs([client.get_experiment_by_name("spml").experiment_id], "run_name = 'restarted'")
    assert [run.info.run_id for run in runs] == [first.run_id] == [second.run_id]
    assert runs[0].info.status == "FINISHED" and runs[0].data.params == {"seed": "1", "new": "2"}
    assert history(uri, first.run_id, "train/loss") == [(1, 3.0), (2, 2.0)]


def test_a_run_that_is_gone_is_replaced(uri):
    tracker = Tracker(uri, "spml", "replaced", run_id="0" * 32)
    assert tracker.finish(seconds=PATIENT)["unsent"] == 0
    assert client_of(uri).get_run(tracker.run_id).info.run_name == "replaced"


def test_the_machine_is_watched(uri):
    tracker = Tracker(uri, "spml", "watched")
    tracker.metrics(7, {"train/loss": 1.0})
    end = time.monotonic() + PATIENT
    while time.monotonic() < end:
        time.sleep(0.2)
        if tracker.run_id and history(uri, tracker.run_id, "system/cpu_utilization_percentage"):
            break
    tracker.finish(seconds=PATIENT)
    used = history(uri, tracker.run_id, "system/system_memory_usage_megabytes")
    assert used and used[-1][0] == 7 and used[-1][1] > 0


def test_a_server_that_is_away_is_not_waited_for_and_the_loss_is_counted(dead_uri, tmp_path):
    tracker = Tracker(dead_uri, "spml", "lonely", params={"seed": 1})
    for step in range(100):
        tracker.metrics(step, {"train/loss": 1.0})
    tracker.artifact(tmp_path / "report.html")
    outcome = tracker.finish(seconds=PATIENT)
    assert (outcome["sent"], outcome["unsent"]) == (0, 102)
    assert dead_uri.removeprefix("http://").split(":")[1] in outcome["error"]
    assert tracker.run_id is None


def test_what_cannot_be_sent_is_counted_and_the_rest_arrives(uri, tmp_path):
    tracker = Tracker(uri, "spml", "partly")
    tracker.artifact(tmp_path / "nowhere.png")
    tracker.metrics(1, {"train/loss": 1.0})
    outcome = tracker.finish(seconds=PATIENT)
    assert (outcome["sent"], outcome["unsent"]) == (1, 1) and "nowhere.png" in outcome["error"]
    assert history(uri, tracker.run_id, "train/loss") == [(1, 1.0)]


def test_a_backlog_has_an_end(dead_uri, monkeypatch):
    monkeypatch.setattr(tracking, "BACKLOG", 10)
    tracker = Tracker(dead_uri, "spml", "flooded")
    for step in range(50):
        tracker.metrics(step, {"train/loss": 1.0})
    assert len(tracker._points) == 10
    assert tracker.finish(seconds=PATIENT)["unsent"] == 50


def test_an_evaluation_is_added_to_a_run_that_has_ended(uri, tmp_path):
    tracker = Tracker(uri, "spml", "evaluated")
    tracker.finish(seconds=PATIENT)
    table = tmp_path / "table.json"
    table.write_text("{}")
    outcome = log_evaluation(uri, tracker.run_id, {"eval/miou": 0.5}, {table: "evaluation"}, step=40)
    assert outcome == {"sent": 2, "unsent": 0, "error": None}
    assert history(uri, tracker.run_id, "eval/miou") == [(40, 0.5)]
    assert client_of(uri).list_artifacts(tracker.run_id, "evaluation")[0].path == "evaluation/table.json"
    assert client_of(uri).get_run(tracker.run_id).info.status == "FINISHED"


def test_an_evaluation_without_its_server_is_only_counted(dead_uri):
    outcome = log_evaluation(dead_uri, "0" * 32, {"eval/miou": 0.5})
    assert (outcome["sent"], outcome["unsent"]) == (0, 1) and outcome["error"]


def test_two_trainings_may_create_the_database_together(uri):
    client = client_of(uri)
    runs = client.search_runs([client.get_experiment_by_name("together").experiment_id])
    assert {run.info.run_name for run in runs} == {"here", "elsewhere"}
    assert all(run.info.status == "FINISHED" and run.data.metrics["train/loss"] == 1.0 for run in runs)


def test_relative_databases_are_placed_under_the_root(tmp_path):
    assert absolute_uri("sqlite:///runs/mlflow.db", tmp_path) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert absolute_uri("sqlite:////data/mlflow.db", tmp_path) == "sqlite:////data/mlflow.db"
    assert absolute_uri("http://host:5000", tmp_path) == "http://host:5000"


@pytest.mark.parametrize("uri", ["runs/mlruns", "file:///data/mlruns"])
def test_plain_folders_are_refused(uri, tmp_path):
    with pytest.raises(ConfigError, match=r"tracking\.uri .*use sqlite:///"):
        absolute_uri(uri, tmp_path)
