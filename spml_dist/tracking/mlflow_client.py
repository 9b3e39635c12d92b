"""MLflow's client: a run found or made, points, parameters.

The only file that imports mlflow, and inside functions: importing it takes seconds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from filelock import FileLock

from spml_dist.errors import ConfigError, RunError
from spml_dist.files.write import replacing
from spml_dist.tracking.pending import MetricPoint

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

TAG = "spml_dist.training"
PARENT = "mlflow.parentRunId"
"""MLflow's own tag, by which its pages show one run below another"""
SQLITE = "sqlite:///"

ENVIRONMENT = {
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""What mlflow finds unless the user has set it: by itself it waits for a dead server for many minutes,
and repeats a request that made a run but was answered too late, which makes a second one."""


def absolute_uri(uri: str, root: str | Path) -> str:
    """The tracking address with a relative SQLite path made absolute under `root`; others as they are.

    ConfigError: a plain folder, which MLflow no longer takes.
    """
    if urlsplit(uri).scheme in ("", "file"):
        raise ConfigError("tracking.uri", uri, "use sqlite:///runs/mlflow.db or a server's http:// address")
    if not uri.startswith(SQLITE):
        return uri
    return SQLITE + os.path.abspath(Path(root) / uri.removeprefix(SQLITE))


def connect(uri: str) -> MlflowClient:
    """A client of the tracking address; a SQLite database is made if need be."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):  # after the import, which sets them
        logging.getLogger(name).setLevel(logging.WARNING)
    database = _database(uri)
    # Two processes that set up the tables of one SQLite file at once would break each other.
    with FileLock(database.with_name(f".{database.name}.lock")) if database else nullcontext():
        if database and not database.exists():
            # Made aside: half of the tables, left by a process that was killed, could never be completed.
            with replacing(database) as aside:
                MlflowClient(tracking_uri=f"{SQLITE}{aside}")
        return MlflowClient(tracking_uri=uri)


def _database(uri: str) -> Path | None:
    """The file of a SQLite address, None for a server's; its folder is made if need be."""
    if not uri.startswith(SQLITE):
        return None
    path = Path(uri.removeprefix(SQLITE))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def resume(
    client: MlflowClient,
    uri: str,
    experiment: str,
    name: str,
    run_id: str | None,
    tag: str,
    parent: str | None = None,
) -> Run:
    """The run of that id; else the one with that tag, whose making was never confirmed; else a new one, below
    the run whose id is `parent`."""
    run = _active(client, run_id) if run_id else None
    if run:
        return run
    experiment_id = _experiment(client, uri, experiment)
    runs = client.search_runs([experiment_id], f"tags.`{TAG}` = '{tag}'", max_results=1)
    tags = {TAG: tag} | ({PARENT: parent} if parent else {})
    return runs[0] if runs else client.create_run(experiment_id, run_name=name, tags=tags)


def last_step(run: Run, prefix: str) -> int:
    """The last step of all the run's metrics whose names start so; -1 for none."""
    return max((m.step for m in run.data.to_proto().metrics if m.key.startswith(prefix)), default=-1)


def log_points(client: MlflowClient, run_id: str, points: Sequence[MetricPoint]) -> None:
    """At most 1000 points; MLflow keeps one that it gets twice only once."""
    from mlflow.entities import Metric

    client.log_batch(run_id, metrics=[Metric(*point) for point in points], synchronous=True)


def log_params(client: MlflowClient, run: Run, params: Mapping[str, Any]) -> None:
    """Those that the run does not have yet: MLflow lets none change."""
    from mlflow.entities import Param

    new = [Param(k, str(v)) for k, v in params.items() if k not in run.data.params]
    if new:
        client.log_batch(run.info.run_id, params=new, synchronous=True)


def _active(client: MlflowClient, run_id: str) -> Run | None:
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
    if known and known.lifecycle_stage != "active":
        command = f"mlflow experiments restore --experiment-id {known.experiment_id}"
        remedy = f"restore it ({command}) or choose another tracking.experiment"
        raise RunError(f"its experiment {name} was deleted", None, remedy)
    if known:
        return known.experiment_id
    database = _database(uri)
    return client.create_experiment(name, database.with_name("mlartifacts").as_uri() if database else None)
