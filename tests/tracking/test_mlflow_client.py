"""What is sent to MLflow: a run found or made once, parameters in its pieces, points kept once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spml_dist.errors import ConfigError, RunError
from spml_dist.tracking.mlflow_client import absolute_uri, connect, last_step, log_params, log_points, resume
from spml_dist.tracking.pending import distinct


def make_run(uri: str, name: str, run_id: str | None = None, tag: str | None = None):
    return resume(connect(uri), uri, "together", name, run_id, tag or name)


def test_two_trainings_may_create_the_database_together(uri):
    client = connect(uri)
    runs = client.search_runs([client.get_experiment_by_name("together").experiment_id])
    assert {"here", "elsewhere"} <= {run.info.run_name for run in runs}


def test_artifacts_lie_beside_the_database(uri):
    experiment = connect(uri).get_experiment_by_name("together")
    beside = Path(uri.removeprefix("sqlite:///")).with_name("mlartifacts")
    assert experiment.artifact_location == beside.as_uri()


def test_a_run_is_found_by_its_id_or_by_its_tag_and_else_made(uri):
    made = make_run(uri, "first").info.run_id
    assert make_run(uri, "renamed", run_id=made).info.run_id == made
    assert make_run(uri, "first").info.run_id == made  # its making was never confirmed
    assert make_run(uri, "first", run_id="0" * 32).info.run_id == made
    assert make_run(uri, "first", tag="of another training").info.run_id != made


def test_a_run_that_was_deleted_is_made_anew(uri):
    deleted = make_run(uri, "deleted").info.run_id
    connect(uri).delete_run(deleted)
    assert make_run(uri, "deleted", run_id=deleted).info.run_id != deleted


def test_a_point_told_twice_is_there_once_and_the_last_step_is_known(uri):
    client, run = connect(uri), make_run(uri, "points")
    points = [("train/loss", 2.0, 1000, 5), ("train/lr", 0.1, 1000, 5), ("train/loss", 1.0, 2000, 10)]
    for _ in range(2):
        log_points(client, run.info.run_id, points)
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value, point.timestamp) for point in history] == [
        (5, 2.0, 1000),
        (10, 1.0, 2000),
    ]
    run = client.get_run(run.info.run_id)
    assert last_step(run, "train/") == 10
    assert last_step(run, "system/") == -1


def test_a_large_configuration_is_sent_in_the_pieces_mlflow_takes(uri):
    client, run = connect(uri), make_run(uri, "large")
    log_params(client, run, {f"key.{number}": number for number in range(230)} | {"long": "x" * 9000})
    run = client.get_run(run.info.run_id)
    assert len(run.data.params) == 231 and run.data.params["long"] == "x" * 6000
    log_params(client, run, {"key.1": "changed", "new": None})
    stored = client.get_run(run.info.run_id).data.params
    assert (stored["key.1"], stored["new"]) == ("1", "None")


def test_time_limits_are_ours_unless_the_user_has_set_them(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    connect(uri)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    # A request that made a run and was answered too late must not be repeated blindly.
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"


def test_relative_databases_are_placed_under_the_root(tmp_path):
    assert absolute_uri("sqlite:///runs/mlflow.db", tmp_path) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert absolute_uri("sqlite:////data/mlflow.db", tmp_path) == "sqlite:////data/mlflow.db"
    assert absolute_uri("http://host:5000", tmp_path) == "http://host:5000"


@pytest.mark.parametrize("uri", ["runs/mlruns", "file:///data/mlruns"])
def test_plain_folders_are_refused(uri, tmp_path):
    with pytest.raises(ConfigError, match=r"tracking\.uri .*use sqlite:///"):
        absolute_uri(uri, tmp_path)


def test_an_experiment_that_was_deleted_is_said_to_be_and_how_it_comes_back(uri):
    client = connect(uri)
    number = client.create_experiment("gone")
    client.delete_experiment(number)
    with pytest.raises(RunError, match=f"gone was deleted; restore it .*{number}.*tracking.experiment"):
        resume(client, uri, "gone", "first", None, "first")
    client.restore_experiment(number)
    assert resume(client, uri, "gone", "first", None, "first").info.experiment_id == number


def test_names_of_classes_in_any_script_are_names_of_metrics(uri):
    client, run = connect(uri), make_run(uri, "scripts")
    names = ["猫", "狗", "собака", "a/b", "a:b", "sea & sand", "..", ".", "x" * 400, "\ttab", "Cat", "cat"]
    points = [(f"iou/{place}", float(i), 1000, 5) for i, place in enumerate(distinct(names).values())]
    log_points(client, run.info.run_id, points)
    assert len(client.get_run(run.info.run_id).data.metrics) == len(names)
