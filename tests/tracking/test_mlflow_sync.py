"""Whatever MLflow does, it ends up with what the run folder holds, once, and no training waits for it."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path

import pytest

from spml_dist.run_folder import RunFolder
from spml_dist.tracking import background, mlflow_client, mlflow_sync
from spml_dist.tracking.background import BackgroundSync
from spml_dist.tracking.mlflow_sync import sync

PATIENT = 120.0
CALLS = ("get_run", "search_runs", "create_run", "update_run", "log_batch", "log_artifact", "set_terminated")


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    for name in ("PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(background, name, 0.02)


class Server:
    """A real database behind a line that can be cut, before a call or after it: then its answer is lost."""

    def __init__(self, monkeypatch):
        self.away = False
        self.lost_answers = 0
        self.refused = ""
        """name of a file that is never taken"""
        self.gate = threading.Event()
        self.gate.set()
        monkeypatch.setattr(
            mlflow_client, "connect", lambda uri, real=mlflow_client.connect: self._wired(real(uri))
        )

    def _wired(self, client):
        for name in CALLS:
            setattr(client, name, self._over_the_line(getattr(client, name)))
        return client

    def _over_the_line(self, call):
        def over(*given, **more):
            assert self.gate.wait(PATIENT)
            if self.away or (self.refused and self.refused in str(given)):
                raise ConnectionError("no way through")
            answer = call(*given, **more)
            if self.lost_answers:
                self.lost_answers -= 1
                raise TimeoutError("no answer in time")
            return answer

        return over


@pytest.fixture
def server(monkeypatch):
    return Server(monkeypatch)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.yaml").write_text("name: it")
    return tmp_path


def log(folder: Path, *steps: int, name: str = "metrics.jsonl", **values: float) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        for step in steps:
            now = int(1000 * time.time())
            file.write(json.dumps({"step": step, "timestamp": now, "loss": 1 / step} | values) + "\n")


def started(folder, uri, message=None) -> BackgroundSync:
    outcome = message.append if message is not None else lambda line: None
    return BackgroundSync(folder, uri, "mirrored", folder.name, {"seed": 1}, outcome)


def runs(uri: str, folder: Path) -> list:
    client = mlflow_client.connect(uri)
    known = client.get_experiment_by_name("mirrored")
    return client.search_runs([known.experiment_id], f"run_name = '{folder.name}'") if known else []


def steps(uri: str, folder: Path, name: str = "train/loss") -> list[int]:
    (run,) = runs(uri, folder)
    return [point.step for point in mlflow_client.connect(uri).get_metric_history(run.info.run_id, name)]


def until(holds) -> None:
    end = time.monotonic() + PATIENT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_everything_in_the_folder_arrives(uri, folder):
    copy = started(folder, uri)
    log(folder, 10, 20)
    log(folder, 1, name="system/node_0.jsonl")
    log(folder, 1, 2, name="system/node_1.jsonl")
    (folder / "previews").mkdir()
    (folder / "previews" / "step_000010.png").write_bytes(b"png")
    assert not copy.finish(seconds=PATIENT)

    (run,) = runs(uri, folder)
    assert run.info.run_id == json.loads((folder / "mlflow.json").read_text())["run_id"]
    assert (run.info.status, run.data.params) == ("FINISHED", {"seed": "1"})
    assert steps(uri, folder) == [10, 20]
    assert steps(uri, folder, "system/node_0/loss") == [1]
    assert steps(uri, folder, "system/node_1/loss") == [1, 2]
    stored = mlflow_client.connect(uri).list_artifacts(run.info.run_id)
    assert [entry.path for entry in stored] == ["config.yaml", "previews"]


def test_what_happens_arrives_while_it_happens(uri, folder):
    copy = started(folder, uri)
    for step in (1, 2):
        log(folder, step)
        until(lambda so_far=step: runs(uri, folder) and len(steps(uri, folder)) == so_far)
    assert runs(uri, folder)[0].info.status == "RUNNING"
    copy.finish("KILLED", seconds=PATIENT)
    assert runs(uri, folder)[0].info.status == "KILLED"


def test_a_server_away_at_the_start_gets_everything_when_it_comes_up(uri, folder, server):
    server.away, message = True, []
    copy = started(folder, uri, message)
    log(folder, *range(1, 2000))
    until(lambda: message)
    assert message[0].startswith(f"MLflow at {uri}: ConnectionError: no way through; training goes on")
    assert json.loads((folder / "mlflow.json").read_text())["run_id"] is None
    server.away = False
    until(lambda: len(message) == 2)
    assert message[1].endswith("has everything again")
    assert not copy.finish(seconds=PATIENT)
    assert steps(uri, folder) == list(range(1, 2000))


def test_a_server_gone_in_the_middle_loses_nothing_and_gets_nothing_twice(uri, folder, server):
    message = []
    copy = started(folder, uri, message)
    log(folder, 1, 2)
    until(lambda: runs(uri, folder) and steps(uri, folder) == [1, 2])
    server.away = True
    log(folder, 3, 4)
    until(lambda: message)
    server.away = False
    log(folder, 5)
    until(lambda: len(message) == 2)
    assert not copy.finish(seconds=PATIENT)
    assert steps(uri, folder) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("lost", [1, 3, 5])
def test_an_answer_that_is_lost_makes_no_second_run_and_no_second_point(uri, folder, server, lost):
    folder = folder / f"lost_{lost}"
    log(folder, 1, 2)
    server.lost_answers = lost
    copy = started(folder, uri)
    until(lambda: server.lost_answers == 0)
    log(folder, 3)
    assert not copy.finish(seconds=PATIENT)
    assert steps(uri, folder) == [1, 2, 3]


def test_a_server_that_never_comes_is_told_of_in_a_line_and_a_restart_sends_it_all(uri, folder, server):
    server.away = True
    log(folder, 1, 2)
    missing = started(folder, uri).finish("FAILED", seconds=PATIENT)
    assert (missing.metrics, missing.files) == (2, 1)
    assert str(missing) == (
        f"MLflow at {uri} lacks 2 numbers and 1 files (ConnectionError: no way through); "
        f"the run folder has them all: send them with spml-dist track {folder}"
    )
    assert runs_behind(server, uri, folder) == []
    again = started(folder, uri)
    log(folder, 3)
    assert not again.finish(seconds=PATIENT)
    assert steps(uri, folder) == [1, 2, 3]
    assert runs(uri, folder)[0].info.status == "FINISHED"


def test_a_training_that_ends_while_its_run_is_looked_up_has_ended(uri, folder, monkeypatch):
    """What was read a moment ago, that it goes on, is not written over what it has noted since."""
    log(folder, 1)
    copy, real = started(folder, uri), mlflow_sync.noted
    copy.finish("KILLED", seconds=PATIENT)
    mlflow_sync.remember(folder, status="RUNNING")

    def just_before_its_end(path: Path) -> dict:
        note = real(path)
        monkeypatch.setattr(mlflow_sync, "noted", real)
        mlflow_sync.remember(folder, status="FINISHED")
        return note

    monkeypatch.setattr(mlflow_sync, "noted", just_before_its_end)
    for _ in range(2):
        assert not sync(folder, uri, "mirrored", folder.name, {})
    assert runs(uri, folder)[0].info.status == "FINISHED"


def runs_behind(server: Server, uri: str, folder: Path) -> list:
    server.away = False
    return runs(uri, folder)


def test_steps_that_a_restart_makes_again_are_not_sent_again(uri, folder):
    log(folder, 1, 2, 3, 4)
    first = started(folder, uri)
    first.finish("FAILED", seconds=PATIENT)
    (folder / "metrics.jsonl").unlink()
    log(folder, 1, 2)  # the checkpoint was of step 2
    second = started(folder, uri)
    log(folder, 3, 4, 5)
    assert not second.finish(seconds=PATIENT)
    assert steps(uri, folder) == [1, 2, 3, 4, 5]


def test_a_run_that_is_gone_is_made_anew_with_everything(uri, folder):
    log(folder, 1, 2)
    started(folder, uri).finish(seconds=PATIENT)
    mlflow_client.connect(uri).delete_run(runs(uri, folder)[0].info.run_id)
    log(folder, 3)
    assert not started(folder, uri).finish(seconds=PATIENT)
    assert steps(uri, folder) == [1, 2, 3]
    assert len(mlflow_client.connect(uri).list_artifacts(runs(uri, folder)[0].info.run_id)) == 1


def test_a_file_that_is_not_taken_keeps_back_nothing_else(uri, folder, server):
    server.refused = "step_000001"
    (folder / "previews").mkdir()
    for number in (1, 2):
        (folder / "previews" / f"step_00000{number}.png").write_bytes(b"png")
    log(folder, 1)
    missing = started(folder, uri).finish(seconds=PATIENT)
    assert (missing.metrics, missing.files) == (0, 1) and "no way through" in missing.error
    stored = mlflow_client.connect(uri).list_artifacts(runs(uri, folder)[0].info.run_id, "previews")
    assert [entry.path for entry in stored] == ["previews/step_000002.png"]


def test_a_line_that_hangs_holds_up_nobody(uri, folder, server):
    server.gate.clear()
    copy = started(folder, uri)
    log(folder, *range(1, 101))
    missing = copy.finish(seconds=0.1)
    assert (missing.metrics, missing.error) == (100, "no answer in 0.1 s")
    server.gate.set()
    until(lambda: json.loads((folder / "mlflow.json").read_text())["sent"].get("metrics.jsonl") == 100)


def test_a_host_that_takes_the_call_and_says_nothing_is_given_up(folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://someone:secret@127.0.0.1:{silent.getsockname()[1]}"
        missing = sync(folder, address, "mirrored", "silent", {})
    assert missing.files == 1 and "imed out" in missing.error
    assert "secret" not in str(missing)


def test_a_folder_can_be_sent_later_and_to_another_server(uri, folder):
    (folder / "mlflow.json").write_text('{"uri": "http://gone", "run_id": "17", "status": "FAILED"}')
    assert mlflow_sync.address(folder) == "http://gone"
    log(folder, 1, 2)
    assert not sync(folder, uri, "mirrored", folder.name, {})
    assert (mlflow_sync.address(folder), steps(uri, folder)) == (uri, [1, 2])
    assert runs(uri, folder)[0].info.status == "FAILED"
    log(folder, 3)
    assert not sync(folder, uri, "mirrored", folder.name, {})
    assert steps(uri, folder) == [1, 2, 3]


@pytest.mark.parametrize("note", ["", "{torn"])
def test_a_damaged_note_costs_no_training(uri, folder, note):
    (folder / "mlflow.json").write_text(note)
    assert mlflow_sync.address(folder) is None
    assert not started(folder, uri).finish(seconds=PATIENT)


def test_an_address_that_does_not_answer_does_not_take_the_place_of_the_old_one(folder, uri):
    assert not sync(folder, uri, "mirrored", folder.name, {})
    before = json.loads(RunFolder(folder).mlflow.read_text())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert sync(folder, f"http://127.0.0.1:{unused.getsockname()[1]}", "mirrored", "x", {}).error
    assert json.loads(RunFolder(folder).mlflow.read_text()) == before
    assert mlflow_sync.address(folder) == uri


def test_sending_twice_sends_nothing_the_second_time(folder, uri, monkeypatch):
    log(folder, 1, 2)
    assert not sync(folder, uri, "mirrored", folder.name, {"seed": 1})
    note = RunFolder(folder).mlflow.stat().st_mtime_ns
    calls = []
    for name in ("log_points", "log_params"):
        monkeypatch.setattr(mlflow_client, name, lambda *given: calls.append(given[2:]))
    assert not sync(folder, uri, "mirrored", folder.name, {"seed": 1})
    assert calls == [({"seed": 1},)]  # and of parameters only those are sent that the run has not
    assert RunFolder(folder).mlflow.stat().st_mtime_ns == note


def test_a_deleted_experiment_stops_no_training_and_is_told_in_a_line(folder, uri):
    client = mlflow_client.connect(uri)
    client.delete_experiment(client.create_experiment("thrown away"))
    missing = BackgroundSync(folder, uri, "thrown away", "x", {}).finish(seconds=PATIENT)
    assert "its experiment thrown away was deleted; restore it (mlflow experiments restore" in missing.error
    assert "or choose another tracking.experiment" in missing.error


def test_a_stage_lies_below_its_run_where_both_are_kept_at_one_place(uri, folder):
    stage = RunFolder(folder).stage("s1")
    stage.mkdir(parents=True)
    for place in (folder, stage):
        log(place, 1, loss=0.5)
        assert not sync(place, uri, "together", place.name, {})
    run_id, above = (mlflow_sync.noted(place)["run_id"] for place in (stage, folder))
    client = mlflow_client.connect(uri)
    assert client.get_run(run_id).data.tags[mlflow_client.PARENT] == above
    assert mlflow_client.PARENT not in client.get_run(above).data.tags
