"""MLflow as a mirror of the run folder: it is told about the training, and never slows or stops it.

A thread compares the folder with what MLflow has, and sends what is missing. Nothing waits in memory, so
nothing is lost: what a server that is away or slow did not take is still in the folder, for later.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from spml_dist.files.write import replacing
from spml_dist.run_folder import RunFolder
from spml_dist.tracking import mlflow_client, pending

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PAUSE = 1.0
"""seconds between two looks at the folder at least; after trouble twice as many each time"""
LONGEST_PAUSE = 60.0
QUIET = 10.0
"""seconds after which the folder is looked at without a notice: other nodes write there too"""
POINTS_A_CALL = 900
"""MLflow takes 1000; whole steps are sent, whose last one may go beyond"""
FAILURES = 3
"""files that may fail before a round is given up"""


def address(folder: Path) -> str | None:
    """The tracking address that a run folder was last mirrored to, None for none."""
    return _read(RunFolder(folder).mlflow).get("uri")


@dataclass(frozen=True)
class Missing:
    """What MLflow lacks of a run folder, and why."""

    folder: Path
    uri: str
    metrics: int
    files: int
    error: str | None
    """the last trouble in a line; None where everything went well"""

    def __bool__(self) -> bool:
        return bool(self.metrics or self.files or self.error)

    @property
    def what(self) -> str:
        return f"MLflow at {_shown(self.uri)} lacks {self.metrics:,} numbers and {self.files:,} files"

    def __str__(self) -> str:
        why = f" ({self.error})" if self.error else ""
        how = f"the run folder has them all: send them with spml-dist track {self.folder}"
        return f"{self.what}{why}; {how}"


class Mirror:
    """One MLflow run for one training, also across its restarts. For rank 0 only.

    A thread makes or resumes the run and sends what the folder holds: the caller never waits for it and sees
    none of its troubles.

    folder: the run folder; its mlflow.json knows the run. uri: absolute, see `absolute_uri`. params: flat,
    names to values. say: told in a line when MLflow goes away and when it is back.
    """

    def __init__(
        self,
        folder: Path,
        uri: str,
        experiment: str,
        name: str,
        params: Mapping[str, Any],
        say: Callable[[str], None] = lambda line: None,
    ):
        self._copy = _Copy(folder, uri, experiment, name, params)
        self._copy.remember(status="RUNNING")
        self._say = say
        self._error: str | None = None
        self._news, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def notice(self) -> None:
        """Something was written into the run folder. Returns at once."""
        self._news.set()

    def finish(self, status: str = "FINISHED", seconds: float = 30.0) -> Missing:
        """Send what is left, within so many seconds, and end the run as FINISHED, FAILED or KILLED."""
        self._copy.remember(status=status)
        self._ending.set()
        self._news.set()
        self._thread.join(seconds)
        error = f"no answer in {seconds:g} s" if self._thread.is_alive() else self._error
        return self._copy.missing(error)

    def _work(self) -> None:
        pause = PAUSE
        while not self._ending.is_set():
            self._news.clear()
            pause = PAUSE if self._round() else min(2 * pause, LONGEST_PAUSE)
            if not self._ending.wait(pause) and self._error is None:
                self._news.wait(QUIET)
        if not self._round() and pause == PAUSE:  # a server that was there until now gets a second chance
            time.sleep(PAUSE)
            self._round()

    def _round(self) -> bool:
        before = self._error
        try:
            self._copy.update()
            self._error = None
        except Exception as error:  # whatever MLflow, its database or the network come up with
            self._error = _line(error)
        if not self._ending.is_set():
            self._tell(before)
        return self._error is None

    def _tell(self, before: str | None) -> None:
        name = f"MLflow at {_shown(self._copy.uri)}"
        if self._error and not before:
            self._say(f"{name}: {self._error}; training goes on, and what it misses is sent when it answers")
        if before and not self._error:
            self._say(f"{name} has everything again")


def catch_up(folder: Path, uri: str, experiment: str, name: str, params: Mapping[str, Any]) -> Missing:
    """Bring MLflow up to date with a run folder, once; as `Mirror`, but waits and leaves the status alone."""
    copy = _Copy(folder, uri, experiment, name, params)
    try:
        copy.update()
    except Exception as error:  # as in Mirror
        return copy.missing(_line(error))
    return copy.missing(None)


class _Copy:
    """A run folder's MLflow run: makes it, resumes it, and sends it what it lacks.

    What is known of it is noted in FOLDER/mlflow.json: `uri`, `run_id`, `training`, by which a run is found
    again whose making was never confirmed, `status`, and `sent`, the marks of what has arrived.
    """

    def __init__(self, folder: Path, uri: str, experiment: str, name: str, params: Mapping[str, Any]):
        self.uri = uri
        self._folder, self._experiment, self._name = folder, experiment, name
        self._params = params
        self._client: MlflowClient | None = None
        self._logs: dict[str, pending.Log] = {}
        self._writing = threading.Lock()
        known = _read(RunFolder(folder).mlflow)
        self._note = {"training": uuid.uuid4().hex, "status": None, "run_id": None, "sent": {}} | known
        self._moved = known.get("uri") not in (None, uri)
        if known.get("uri") != uri:
            self._note |= {"uri": uri, "run_id": None, "sent": {}}

    def remember(self, **known: Any) -> None:
        """Note it on disk too; where the disk refuses, at worst something is sent twice."""
        with self._writing, suppress(OSError):
            self._note |= known
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(RunFolder(self._folder).mlflow) as aside:
                aside.write_text(json.dumps(self._note) + "\n", encoding="utf-8")

    def missing(self, error: str | None) -> Missing:
        try:
            metrics, files = pending.count(self._folder, self._note["sent"])
        except (OSError, ValueError, KeyError) as damage:  # a training does not end with that
            metrics, files, error = 0, 0, _line(damage)
        return Missing(self._folder, self.uri, metrics, files, error)

    def update(self) -> None:
        """Send what is missing; raises what MLflow raises. After that the server is asked what it has."""
        client, self._client = self._client or self._open(), None
        self._send_logs(client)
        self._send_files(client)
        if self._note["status"] not in (None, "RUNNING"):
            client.set_terminated(self._note["run_id"], self._note["status"])
        self._client = client

    def _open(self) -> MlflowClient:
        client = mlflow_client.connect(self.uri)
        if self._moved:
            client.search_experiments(max_results=1)  # a wrong address does not take the place of the old one
        self.remember()  # the tag has to be on disk before a run carries it
        note = self._note
        run = mlflow_client.resume(
            client, self.uri, self._experiment, self._name, note["run_id"], note["training"]
        )
        if run.info.run_id != note["run_id"]:
            self._logs = {}
            self.remember(run_id=run.info.run_id, sent={})
        if self._note["status"] == "RUNNING" != run.info.status:
            client.update_run(run.info.run_id, status="RUNNING")
        # What the server has is not sent again, even when a restart has made those steps once more.
        self._arrived(
            {log.name: mlflow_client.last_step(run, log.prefix) for log in pending.logs(self._folder)}
        )
        mlflow_client.log_params(client, run, self._params)
        return client

    def _send_logs(self, client: MlflowClient) -> None:
        for log in pending.logs(self._folder):
            log = self._logs.setdefault(log.name, log)
            for points in log.batches(self._note["sent"].get(log.name, -1), POINTS_A_CALL):
                mlflow_client.log_points(client, self._note["run_id"], points)
                self._arrived({log.name: points[-1][-1]})

    def _send_files(self, client: MlflowClient) -> None:
        """One file that MLflow will not take does not keep back the others."""
        failures = []
        for file in pending.files(self._folder, self._note["sent"]):
            try:
                self._send_file(client, file)
            except Exception as error:  # told below
                failures.append(error)
            if len(failures) == FAILURES:
                break
        if failures:
            raise failures[0]

    def _send_file(self, client: MlflowClient, file: pending.File) -> None:
        run_id = self._note["run_id"]
        if points := pending.numbers(self._folder, file):
            mlflow_client.log_points(client, run_id, points)
        client.log_artifact(run_id, str(self._folder / file.name), file.place)
        self._arrived({file.name: file.mark})

    def _arrived(self, marks: Mapping[str, int]) -> None:
        self.remember(sent=self._note["sent"] | marks)


def _read(note: Path) -> dict[str, Any]:
    """What is noted; nothing where there is no note or a damaged one."""
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _line(error: BaseException) -> str:
    """The first cause in a line: what HTTP clients wrap around it is long, and repeats the address."""
    while error.__context__:
        error = error.__context__
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _shown(uri: str) -> str:
    """Without the user name and the password that an address may carry."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else uri
