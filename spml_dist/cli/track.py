"""`spml-dist track`: send MLflow what it lacks of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from spml_dist.cli.arguments import add_verb
from spml_dist.cli.report import require_run
from spml_dist.errors import RunError
from spml_dist.run_folder import RunFolder

EXAMPLES = """\
examples:
  spml-dist track runs/quickstart                  # the server was away: send what it missed
  spml-dist track runs/quickstart --uri http://mlflow.example.org:5000

A training sends by itself while it runs and when it is resumed; this is for the rest. Nothing is sent twice.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    parser = add_verb(
        subparsers,
        "track",
        "send MLflow what it missed of a run",
        "Send MLflow what it missed of a run: metrics, previews, evaluations.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="run folder that `spml-dist train` wrote")
    parser.add_argument("--uri", help="MLflow's address; default: where the run was sent before")
    parser.add_argument(
        "--experiment", metavar="NAME", help="of MLflow; default: the run's tracking.experiment"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    require_run(args.folder)
    _, run_id = send(args.folder, args.uri, args.experiment)
    print(f"MLflow has all of {args.folder}: run {run_id}")
    return 0


def send(folder: Path, uri: str | None = None, experiment: str | None = None) -> tuple[str, str]:
    """(MLflow's address, the id of the run there), once it has everything. uri, experiment: None = where the
    run was sent before, else what its configuration says. Raises RunError where MLflow lacks something."""
    from spml_dist.config import flatten, load
    from spml_dist.tracking import mlflow_sync
    from spml_dist.tracking.mlflow_client import absolute_uri

    config = load(RunFolder(folder).config)
    uri = absolute_uri(uri or mlflow_sync.address(folder) or config.tracking.uri, Path.cwd())
    experiment = experiment or config.tracking.experiment
    missing = mlflow_sync.sync(folder, uri, experiment, config.name, flatten(config))
    if missing:
        other = " or --experiment NAME" if "was deleted" in (missing.error or "") else ""
        remedy = f"try again when it answers, or give --uri ADDRESS{other}"
        raise RunError(missing.what, missing.error, remedy)
    return uri, mlflow_sync.noted(folder)["run_id"]
