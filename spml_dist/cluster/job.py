"""A command as a job on a running Ray cluster: handed in, followed, and its exit status. It runs nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spml_dist.errors import RunError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

EXCLUDES = ("/.venv", "/.git", "/runs", "/data", "/shards/packed")
"""of an uploaded folder, what is large or the cluster's own"""
ANSWER_SECONDS = 20
"""how long the head may take to answer"""
STOPPED = 130
"""exit status of a job that was stopped before it had one of its own"""


@dataclass(frozen=True)
class Job:
    """A job that a cluster has taken."""

    client: JobSubmissionClient
    address: str
    name: str

    @property
    def afterwards(self) -> str:
        """How it is stopped, and followed again."""
        stop, follow = (f"ray job {verb} --address {self.address}" for verb in ("stop", "logs --follow"))
        return f"job {self.name} goes on; to stop it: {stop} {self.name}; to follow it: {follow} {self.name}"

    def follow(self, show: Callable[[str], None]) -> int:
        """Hand every piece of its log to `show` until it ends, and return its exit status.

        RunError: it could not be started, or the log broke off. KeyboardInterrupt says how to go on.
        """
        try:
            asyncio.run(self._tail(show))
            details = self.client.get_job_info(self.name)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self.afterwards) from None
        except Exception as problem:  # of Ray, aiohttp or requests
            raise RunError("the log broke off", _line(problem), self.afterwards) from problem
        status = details.driver_exit_code
        if not details.status.is_terminal():
            raise RunError("the log broke off", None, self.afterwards)
        if status is not None:
            return status if status >= 0 else 128 - status
        if details.status == "FAILED":
            raise RunError(f"job {self.name} could not be run", details.message, "mend what it names")
        return 0 if details.status == "SUCCEEDED" else STOPPED

    async def _tail(self, show: Callable[[str], None]) -> None:
        async for piece in self.client.tail_job_logs(self.name):
            show(piece)


def submit(
    address: str, command: Sequence[str], name: str, environment: Mapping[str, str], upload: Path | None
) -> Job:
    """Hand in a command. It runs in the folder of this call, which all nodes have to see, or in a copy.

    address: http://HOST:PORT of the head's dashboard; name: of the job, unlike that of any other;
    environment: variables of the job and of its workers, no keys, since Ray logs them; upload: the folder
    of which a copy is made, without EXCLUDES. RunError: no head answers there, or it refuses.
    """
    headers = _authorization(address)
    os.environ["RAY_API_SERVER_ADDRESS"] = (
        address  # Ray prefers it, and RAY_ADDRESS, to the address it is given
    )
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.ERROR)
    for module in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "dashboard.utils"):
        logging.getLogger(f"ray.{module}").setLevel(logging.ERROR)
    runtime: dict[str, object] = {"env_vars": dict(environment)}
    entrypoint = f"exec {shlex.join(command)}"
    if upload:
        runtime |= {"working_dir": str(upload), "excludes": list(EXCLUDES)}
    else:
        entrypoint = f"cd {shlex.quote(os.getcwd())} && {entrypoint}"
    try:
        client = JobSubmissionClient(address, headers=headers)
        client.submit_job(entrypoint=entrypoint, submission_id=name, runtime_env=runtime)
    except Exception as problem:  # a RuntimeError with the head's words, of requests, of a folder too large
        raise RunError(f"{address} does not take the job", _line(problem), "mend what it names") from problem
    return Job(client, address, name)


def dashboard(address: str) -> str:
    """The address as the dashboard's. RunError for one of another kind."""
    scheme, separator, rest = address.partition("://")
    if separator and scheme not in ("http", "https"):
        raise RunError("--address is not the dashboard's", address, "give http://HOST:8265")
    return (address if separator else f"http://{scheme}{rest}").rstrip("/")


def _authorization(address: str) -> dict[str, str]:
    """The header that a head lets in, found out by asking it. RunError: it does not, or is none."""
    token, source = _token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        request = urllib.request.Request(f"{address}/api/version", headers=headers)
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            json.load(answer)["ray_version"]
    except urllib.error.HTTPError as error:
        if error.code == 401:
            remedy = "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to its file"
            raise RunError(f"{address} wants a token and none was found", None, remedy) from None
        if error.code == 403:
            remedy = "use the one that the head was started with"
            raise RunError(f"{address} refuses the token in {source}", None, remedy) from None
        raise _no_dashboard(address, error.code) from None
    except (TypeError, KeyError, json.JSONDecodeError, UnicodeDecodeError):
        raise _no_dashboard(address, "something else") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise RunError(
            f"{address} cannot be reached", reason, "is it the dashboard of a running head?"
        ) from None
    return headers


def _no_dashboard(address: str, answer: object) -> RunError:
    return RunError(f"{address} does not answer as a Ray dashboard", answer, "give http://HOST:8265")


def _token() -> tuple[str, str]:
    """The cluster's token and where it was found, in the places and order of Ray; empty for none."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return "", ""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token, "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text(encoding="utf-8").strip(), str(path)
    except (OSError, UnicodeDecodeError) as problem:
        if named:
            raise RunError("RAY_AUTH_TOKEN_PATH", named, "name a file that can be read") from problem
    return "", ""


def _line(problem: Exception) -> str:
    return next(iter(str(problem).strip().splitlines()), type(problem).__name__)
