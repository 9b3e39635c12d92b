"""`spml-dist submit`: the same command as a job on a Ray cluster."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from functools import partial
from pathlib import Path

from spml_dist.cli.arguments import add_verb, parse
from spml_dist.errors import ConfigError, SpmlError

EXAMPLES = """\
examples:
  spml-dist submit configs/gid15_scribble.yaml --address http://HEAD:8265 engine.workers=8 stream.batch=64
  spml-dist submit --address http://HEAD:8265 -- pack sample --out data/sample --workers 8   # any verb
  spml-dist submit --address http://HEAD:8265 --working-dir . --python python configs/mine.yaml \\
      output=/shared/runs data.train=/shared/train data.val=/shared/val tracking.uri=http://mlflow:5000

Follows the job's log and ends with its exit status; Ctrl-C leaves the log, not the job. What can be known of
the command is checked here first, so that a misspelt key costs no place in a queue.

Without --working-dir nothing is uploaded: the job runs in the current folder, which all nodes have to see
under the same path. A cluster with token authentication wants its token: in RAY_AUTH_TOKEN, in the file that
RAY_AUTH_TOKEN_PATH names, or in ~/.ray/auth_token. RAY_JOB_STOP_WAIT_TIME_S is how many seconds `ray job
stop` gives the job to save before it kills it (default: 600). Other keys, such as MLFLOW_TRACKING_TOKEN,
belong into the environment of `ray start` on every node: Ray logs what a job is given by --env.
"""
STOP_SECONDS = "RAY_JOB_STOP_WAIT_TIME_S"
KEYS = re.compile(r"TOKEN|SECRET|PASSW|KEY|CREDENTIAL", re.IGNORECASE)
"""in the names of variables whose values nobody should see"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    about = "Run a training, or any other verb, as a job on a running Ray cluster, and follow it."
    parser = add_verb(subparsers, "submit", "run a verb as a job on a Ray cluster", about, EXAMPLES)
    first = "experiment to train; or, after --, any verb and what follows it"
    parser.add_argument("first", metavar="CONFIG", help=first)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to it, by dotted key")
    address = "the head's dashboard, such as http://HOST:8265 (default: RAY_API_SERVER_ADDRESS)"
    parser.add_argument("--address", metavar="URL", help=address)
    python = "interpreter on the cluster, of the same Python and Ray version (default: the one used here)"
    parser.add_argument("--python", metavar="PATH", default=sys.executable, help=python)
    upload = (
        "upload DIR and run in the copy, for a cluster that does not see this folder; what is written has "
    )
    upload += "to go to absolute paths or addresses that the cluster sees"
    parser.add_argument("--working-dir", metavar="DIR", type=Path, help=upload)
    env = "hand this variable of here to the job and its workers, such as NCCL_DEBUG; no key; repeatable"
    parser.add_argument("--env", metavar="NAME", action="append", default=[], help=env)
    parser.add_argument("--no-wait", action="store_true", help="leave once the job is queued")
    parser.set_defaults(run=partial(run, subparsers))


def run(verbs: argparse._SubParsersAction, args: argparse.Namespace) -> int:
    """Check, submit, follow. verbs: by which the job's words are checked."""
    from spml_dist.cluster import job

    words = [args.first, *args.overrides]
    if args.first not in verbs.choices:
        words = ["train", *words]
    if words[0] == "submit":
        raise SpmlError("submit submits other verbs", None, "leave the second one out")
    if args.working_dir and not args.working_dir.is_dir():
        raise SpmlError("--working-dir is not a folder", args.working_dir, "name the one to upload")
    upload = args.working_dir.resolve() if args.working_dir else None
    words = _checked(words, verbs.choices[words[0]], upload)
    environment = _environment(args.env, upload)
    address = args.address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not address:
        raise SpmlError("no --address given", None, "it is the head's dashboard, such as http://HOST:8265")

    command = [args.python, "-m", "spml_dist", *words]
    submitted = job.submit(job.dashboard(address), command, _name(words), environment, upload)
    print(f"submitted {submitted.name}", flush=True)
    if args.no_wait:
        print(submitted.afterwards)
        return 0
    return submitted.follow(partial(print, end="", flush=True))


def _checked(words: list[str], parser: argparse.ArgumentParser, upload: Path | None) -> list[str]:
    """The words, with the experiment by its place in the uploaded folder. Raises what the job would."""
    from spml_dist.config import differences, explain
    from spml_dist.training.absolute_paths import absolute

    job = parse(parser, words[1:])
    file = getattr(job, "config", None)
    if not file:
        return words
    config, _ = explain(file, job.overrides)
    if not upload:
        return words
    for key, given, _ in differences(config, absolute(config, Path("/"))):
        remedy = "the job runs in a copy that is thrown away: give an absolute path or an address"
        raise ConfigError(f"{key} is relative", given, remedy)
    if not file.resolve().is_relative_to(upload):
        raise SpmlError(f"{file} is not inside --working-dir", upload, "it would not be uploaded")
    place = str(file.resolve().relative_to(upload))
    return [place if word == str(file) else word for word in words]


def _environment(names: list[str], upload: Path | None) -> dict[str, str]:
    """The job's variables."""
    seconds = os.environ.get(STOP_SECONDS, "600")
    if not seconds.isdecimal():
        raise SpmlError(STOP_SECONDS, seconds, "it is a number of seconds")
    for name in names:
        if KEYS.search(name):  # as the agent of a node does with every runtime environment
            remedy = "Ray logs a job's variables: set it where `ray start` runs, on every node"
            raise SpmlError("--env names a key", name, remedy)
        if name not in os.environ:
            raise SpmlError("--env names a variable that is not set here", name, "set it, or leave it out")
    environment = {STOP_SECONDS: seconds, "RAY_USAGE_STATS_ENABLED": "0"}
    checkout = Path(__file__).parents[2]
    if not upload and (checkout / "pyproject.toml").exists():  # not installed, or not this version of it
        environment["PYTHONPATH"] = str(checkout)
    return environment | {name: os.environ[name] for name in names}


def _name(words: list[str]) -> str:
    """A job's name: no two are the same."""
    about = Path(words[1]).stem if words[0] == "train" else words[0]
    return f"spml-{re.sub(r'[^A-Za-z0-9_-]', '-', about)}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
