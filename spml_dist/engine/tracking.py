"""MLflow as a bystander: it is told about the training, and never slows or stops it.

The only file that imports mlflow, and inside functions: importing it takes seconds.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from spml_dist.errors import ConfigError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

WAITS = (1.0, 4.0)
"""seconds before the second and the third attempt at anything"""
LONGEST_WAIT = 60.0
"""seconds between attempts to reach a server that has not answered yet"""
BACKLOG = 100_000
"""values, and as many files, that may wait for MLflow; those on top of it are dropped and counted"""
VALUES_A_CALL = 1000
PARAMS_A_CALL = 100
LONGEST_PARAM = 6000
"""MLflow's own limits; a parameter's is in characters"""

SQLITE = "sqlite:///"

ENVIRONMENT = {
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""What mlflow finds unless the user has set it: by itself it waits for a dead server for many minutes"""

Point = tuple[str, float, int, int]
"""name, value, milliseconds since 1970, step"""
Artifact = tuple[str | Path, str | None]
"""a file, and the folder among the run's artifacts where it goes (None: the top)"""


def absolute_uri(uri: str, root: str | Path) -> str:
    """The tracking address with a relative SQLite path made absolute under `root`; others as they are.

    ConfigError: a plain folder, which MLflow no longer takes.
    """
    if urlsplit(uri).scheme in ("", "file"):
        raise ConfigError("tracking.uri", uri, "use sqlite:///runs/mlflow.db or a server's http:// address")
    if not uri.startswith(SQLITE):
        return uri
    return SQLITE + os.path.abspath(Path(root) / uri.removeprefix(SQLITE))


class Tracker:
    """One MLflow run for one training, also across its restarts. For rank 0 only.

    A thread makes or resumes the run and sends everything. The caller never waits for it and sees none of
    its troubles: everything is tried a few times, and counted in the end.

    uri: absolute, see `absolute_uri`; run_id: the run to resume, None for a new one (also made where the old
    one is gone); params: flat, names to values; keep: told the run's id as soon as the run exists, to give
    it to a restart.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        run_name: str,
        run_id: str | None = None,
        params: Mapping[str, Any] = {},
        keep: Callable[[str], None] = lambda run_id: None,
    ):
        self.run_id = run_id
        self._open = lambda: _open(uri, experiment, run_name, self.run_id)
        self._uri = uri
        self._keep = keep
        self._params = {name: str(value)[:LONGEST_PARAM] for name, value in params.items()}
        self._points: deque[Point] = deque()
        self._artifacts: deque[Artifact] = deque()
        self._step = 0
        self._status = "FINISHED"
        self._news = threading.Event()
        self._attempts = _Attempts(expected=len(self._params))
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Values of a step by name. Returns at once."""
        self._step = step
        self._attempts.expected += len(values)
        if len(self._points) < BACKLOG:
            self._points.extend(_points(step, values))
            self._news.set()

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """A file, which has to stay where it is until `finish`. Returns at once."""
        self._attempts.expected += 1
        if len(self._artifacts) < BACKLOG:
            self._artifacts.append((path, folder))
            self._news.set()

    def finish(self, status: str = "FINISHED", seconds: float = 30.0) -> dict[str, Any]:
        """Send what is left, within so many seconds, and end the run as FINISHED, FAILED or KILLED.

        Returns "sent" and "unsent", numbers of parameters, values and files, and "error", the last trouble
        in a line (it may have passed) or None.
        """
        self._status = status
        self._attempts.last_call.set()
        self._news.set()
        self._thread.join(seconds)
        return self._attempts.outcome()

    def _work(self) -> None:
        client = self._reach()
        if client is None:
            return
        monitor = self._attempts.make(0, _monitor, self.run_id, self._uri)
        interval = monitor.sampling_interval if monitor else LONGEST_WAIT
        due = 0.0  # the first reading at once: the shortest run has one too
        while True:
            self._news.clear()
            last = self._attempts.last_call.is_set()
            if time.monotonic() >= due:
                self._attempts.make(0, _log_system, client, self.run_id, monitor, self._step)
                due = time.monotonic() + interval
            self._send(client)
            if last:
                break
            self._news.wait(max(0.0, due - time.monotonic()))
        self._attempts.make(0, client.set_terminated, self.run_id, self._status)

    def _reach(self) -> MlflowClient | None:
        """Make or resume the run, however long the server takes; None: told to finish before it answered."""
        wait = WAITS[-1]
        while (opened := self._attempts.make(0, self._open)) is None:
            if self._attempts.last_call.wait(wait):
                return None
            wait = min(2 * wait, LONGEST_WAIT)
        client, run = opened
        self.run_id = run.info.run_id
        self._attempts.make(0, self._keep, self.run_id)
        known = self._params.keys() & run.data.params.keys()
        self._attempts.done += len(known)
        new = ((name, value) for name, value in self._params.items() if name not in known)
        while params := list(islice(new, PARAMS_A_CALL)):
            self._attempts.make(len(params), _log_params, client, self.run_id, params)
        return client

    def _send(self, client: MlflowClient) -> None:
        while self._points:
            points = [self._points.popleft() for _ in range(min(len(self._points), VALUES_A_CALL))]
            self._attempts.make(len(points), _log_points, client, self.run_id, points)
        while self._artifacts:
            self._attempts.make(1, client.log_artifact, self.run_id, *self._artifacts.popleft())


def log_evaluation(
    uri: str,
    run_id: str,
    metrics: Mapping[str, float],
    artifacts: Mapping[str | Path, str | None] = {},
    step: int = 0,
) -> dict[str, Any]:
    """Add an evaluation to a run that has ended; artifacts: files and the folders where they go.

    Waits for MLflow, raises nothing, and returns what `Tracker.finish` returns.
    """
    attempts = _Attempts(expected=len(metrics) + len(artifacts))
    client = attempts.make(0, _client, uri)
    if client:
        attempts.make(len(metrics), _log_points, client, run_id, _points(step, metrics))
        for path, folder in artifacts.items():
            attempts.make(1, client.log_artifact, run_id, path, folder)
    return attempts.outcome()


class _Attempts:
    """Tries things that may fail, and counts."""

    def __init__(self, expected: int):
        self.expected = expected
        self.done = 0
        self.error: str | None = None
        self.last_call = threading.Event()

    def make(self, weight: int, call: Callable, *args: Any) -> Any:
        """What the call returns, None if it failed every time; after the last call it is tried only once."""
        for wait in (*WAITS, 0.0):
            try:
                result = call(*args)
            except Exception as error:  # whatever MLflow, its database or the network come up with
                self.error = f"{type(error).__name__}: {error}".splitlines()[0]
                if self.last_call.wait(wait):
                    break
            else:
                self.done += weight
                return result
        return None

    def outcome(self) -> dict[str, Any]:
        return {"sent": self.done, "unsent": self.expected - self.done, "error": self.error}


def _client(uri: str) -> MlflowClient:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    with _alone_at(uri):
        database = Path(uri.removeprefix(SQLITE))
        if uri.startswith(SQLITE) and not database.exists():
            # Made aside: half of the tables, left by a process that was killed, could never be completed.
            aside = database.with_name(f"{database.name}.tmp")
            aside.unlink(missing_ok=True)
            MlflowClient(tracking_uri=f"{SQLITE}{aside}")
            aside.replace(database)
        return MlflowClient(tracking_uri=uri)


@contextmanager
def _alone_at(uri: str) -> Iterator[None]:
    """Two processes that set up the tables of one SQLite file at once would break each other."""
    if not uri.startswith(SQLITE):
        yield
        return
    database = Path(uri.removeprefix(SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f".{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _open(uri: str, experiment: str, run_name: str, run_id: str | None) -> tuple[MlflowClient, Run]:
    client = _client(uri)
    run = _existing(client, run_id) if run_id else None
    if run is None:
        run = client.create_run(_experiment(client, uri, experiment), run_name=run_name)
    else:
        client.update_run(run_id, status="RUNNING")
    return client, run


def _existing(client: MlflowClient, run_id: str) -> Run | None:
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


def _experiment(client: MlflowClient, uri: str, name: str) -> str:
    known = client.get_experiment_by_name(name)
    if known:
        return known.experiment_id
    beside = uri.startswith(SQLITE) and Path(uri.removeprefix(SQLITE)).with_name("mlartifacts").as_uri()
    return client.create_experiment(name, artifact_location=beside or None)


def _points(step: int, values: Mapping[str, float]) -> list[Point]:
    now = int(time.time() * 1000)
    return [(name, float(value), now, step) for name, value in values.items()]


def _log_points(client: MlflowClient, run_id: str, points: Sequence[Point]) -> None:
    from mlflow.entities import Metric

    client.log_batch(run_id, metrics=[Metric(*point) for point in points])


def _log_params(client: MlflowClient, run_id: str, params: Sequence[tuple[str, str]]) -> None:
    from mlflow.entities import Param

    client.log_batch(run_id, params=[Param(*param) for param in params])


def _monitor(run_id: str, uri: str) -> Any:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    return SystemMetricsMonitor(run_id, tracking_uri=uri)


def _log_system(client: MlflowClient, run_id: str, monitor: Any, step: int) -> None:
    # MLflow's monitor has a thread of its own, which gives up when the server is away and is joined
    # without a limit: only its readings are used.
    if monitor is None:
        return
    monitor.collect_metrics()
    values = monitor.aggregate_metrics()
    for part in monitor.monitors:
        part.clear_metrics()
    _log_points(client, run_id, _points(step, {f"system/{name}": value for name, value in values.items()}))
