"""MLflow as a copy of the run folder: `sync` compares the two and sends what is missing.

It may be called at any time, any number of times, by a training and by `spml-dist track`. Nothing waits in
memory, so nothing is lost: what a server that is away or slow did not take is still in the folder.

What is known of the copy is noted in RUN/mlflow.json: `uri`, `run_id`, `training`, the tag by which a run is
found again whose making was never confirmed, `status`, and `sent`, the marks of what has arrived.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from spml_dist.errors import SpmlError
from spml_dist.files.write import replacing
from spml_dist.run_folder import RunFolder
from spml_dist.tracking import mlflow_client, pending

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

POINTS_A_CALL = 900
"""MLflow takes 1000; whole steps are sent, whose last one may go beyond"""
FAILURES = 3
"""files that may fail before the others are left for later"""

_NOTE = threading.Lock()


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
        return f"MLflow at {shown(self.uri)} lacks {self.metrics:,} numbers and {self.files:,} files"

    def __str__(self) -> str:
        why = f" ({self.error})" if self.error else ""
        how = f"the run folder has them all: send them with spml-dist track {self.folder}"
        return f"{self.what}{why}; {how}"


def sync(folder: Path, uri: str, experiment: str, name: str, params: Mapping[str, Any]) -> Missing:
    """Send MLflow what it lacks of a run folder, and return what it still lacks; raises nothing.

    uri: absolute, see `absolute_uri`; experiment, name: of the run, where it has to be made; params: flat,
    names to values. The run ends as its noted status tells.
    """
    error = None
    try:
        _send(folder, uri, experiment, name, params)
    except Exception as trouble:  # whatever MLflow, its database, the network or the disk come up with
        error = line(trouble)
    return missing(folder, uri, error)


def address(folder: Path) -> str | None:
    """The tracking address that a run folder was last sent to, None for none."""
    return noted(folder).get("uri")


def missing(folder: Path, uri: str, error: str | None) -> Missing:
    """What the note lets expect; a damaged file of the folder is reported, and costs no training."""
    try:
        metrics, files = pending.count(folder, noted(folder).get("sent", {}))
    except (OSError, ValueError, KeyError) as damage:
        metrics, files, error = 0, 0, line(damage)
    return Missing(folder, uri, metrics, files, error)


def noted(folder: Path) -> dict[str, Any]:
    """The note; empty where there is none or a damaged one."""
    try:
        return json.loads(RunFolder(folder).mlflow.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def remember(folder: Path, **known: Any) -> None:
    """Change the note; on disk before it is relied on, and safe among threads. Raises OSError."""
    with _NOTE:
        before = noted(folder)
        if before | known != before:
            path = RunFolder(folder).mlflow
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as aside:
                aside.write_text(json.dumps(before | known) + "\n", encoding="utf-8")


def _send(folder: Path, uri: str, experiment: str, name: str, params: Mapping[str, Any]) -> None:
    client, note = mlflow_client.connect(uri), noted(folder)
    if note.get("uri") not in (None, uri):
        client.search_experiments(max_results=1)  # a wrong address does not take the place of the old one
    if note.get("uri") != uri:
        note |= {"uri": uri, "run_id": None, "sent": {}}
    status = note.pop("status", None)  # the training's to change, at any time: it is not written back
    note = {"training": uuid.uuid4().hex, "run_id": None, "sent": {}} | note
    remember(folder, **note)  # the tag has to be on disk before a run carries it
    parent = _parent(folder, uri)
    run = mlflow_client.resume(client, uri, experiment, name, note["run_id"], note["training"], parent)
    run_id = run.info.run_id
    if run_id != note["run_id"]:
        remember(folder, run_id=run_id, sent={})
    if status == "RUNNING" != run.info.status:
        client.update_run(run_id, status="RUNNING")
    mlflow_client.log_params(client, run, params)
    _send_logs(folder, client, run)
    _send_artifacts(folder, client, run_id)
    if status not in (None, "RUNNING", run.info.status):
        client.set_terminated(run_id, status)


def _parent(folder: Path, uri: str) -> str | None:
    """The MLflow run whose stage the folder is, where it is kept at the same place."""
    parent = RunFolder(folder).parent
    above = noted(parent) if parent else {}
    return above.get("run_id") if above.get("uri") == uri else None


def _send_logs(folder: Path, client: MlflowClient, run: Run) -> None:
    for name, prefix in pending.logs(folder).items():
        # The server's own last step: what it has is not sent again, even when its answer was lost, or a
        # restart has made those steps once more, with other values.
        mark = mlflow_client.last_step(run, prefix)
        _arrived(folder, name, mark)
        for points in pending.batches(folder / name, prefix, mark, POINTS_A_CALL):
            mlflow_client.log_points(client, run.info.run_id, points)
            _arrived(folder, name, points[-1][-1])


def _send_artifacts(folder: Path, client: MlflowClient, run_id: str) -> None:
    """One file that MLflow will not take does not keep back the others."""
    failures: list[Exception] = []
    for artifact in pending.artifacts(folder, noted(folder)["sent"]):
        try:
            if points := pending.numbers(folder, artifact):
                mlflow_client.log_points(client, run_id, points)
            client.log_artifact(run_id, str(folder / artifact.name), artifact.group)
            _arrived(folder, artifact.name, artifact.mark)
        except Exception as failure:  # raised below
            failures.append(failure)
        if len(failures) == FAILURES:
            break
    if failures:
        raise failures[0]


def _arrived(folder: Path, name: str, mark: int) -> None:
    remember(folder, sent=noted(folder)["sent"] | {name: mark})


def line(error: BaseException) -> str:
    """The first cause in a line: what HTTP clients wrap around it is long, and repeats the address."""
    while error.__context__:
        error = error.__context__
    text = str(error) if isinstance(error, SpmlError) else f"{type(error).__name__}: {error}"
    return text.splitlines()[0][:200]


def shown(uri: str) -> str:
    """Without the user name and the password that an address may carry."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else uri
