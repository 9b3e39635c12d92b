"""`spml-dist export`: a trained network that leaves its run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from spml_dist import __version__
from spml_dist.cli.arguments import add_verb
from spml_dist.cli.report import require_run
from spml_dist.errors import ConfigError, RunError

EXAMPLES = """\
examples:
  spml-dist export runs/quickstart                                  # safetensors and JSON
  spml-dist export runs/quickstart --format onnx --out models/scenes
  spml-dist export runs/quickstart --mlflow                         # with the run, in MLflow
  spml-dist export runs/quickstart --mlflow --register scenes       # and as a version of `scenes`
  MLFLOW_TRACKING_URI=sqlite:///runs/mlflow.db mlflow models serve -m models:/scenes/1 --env-manager local

Any of them holds classes, preprocessing, and the crop that the network was trained for. An ONNX graph takes
pictures of any size as they are, and is compared with the network before it is called done (extra `onnx`).
docs/export.md has what goes in and comes out.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        "export",
        "write a trained network for use elsewhere",
        "Write the network of a finished run as safetensors or ONNX, or log it as a model of MLflow.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="run folder that `spml-dist train` wrote")
    forms = ("safetensors", "onnx")
    parser.add_argument("--format", choices=forms, default=forms[0], help=f"default: {forms[0]}")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="a new folder; default: RUN/export_FORMAT, in the run"
    )
    parser.add_argument(
        "--mlflow", action="store_true", help="also log it to the run's MLflow as a pyfunc model"
    )
    parser.add_argument("--register", metavar="NAME", help="with --mlflow: register it under this name")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, and say what is where."""
    require_run(args.folder)
    if args.mlflow and args.format != "safetensors":
        raise ConfigError("--mlflow", f"--format {args.format}", "it takes safetensors: leave --format out")
    if args.register and not args.mlflow:
        raise ConfigError("--register", args.register, "it goes with --mlflow")
    from spml_dist.inference.export_run import export_run

    exported = export_run(args.folder, args.format, args.out)
    print(f"{'wrote' if exported.new else 'already there:'} {exported.folder}")
    if exported.difference is not None:
        print(f"its outputs differ from the network's by {exported.difference:.1e} at most")
    if args.mlflow:
        address = _log(args.folder, exported.folder, exported.info, args.register)
        print(f"logged to MLflow as {address}")
    return 0


def _log(run_folder: Path, export_folder: Path, info: dict[str, Any], register: str | None) -> str:
    """Log an export with its run, which MLflow gets first if it lacks it."""
    from spml_dist.cli.track import send
    from spml_dist.inference import mlflow_model
    from spml_dist.tracking import mlflow_client, mlflow_sync

    uri, run_id = send(run_folder)
    model = mlflow_client.LoadedModel(
        folder=export_folder,
        module=mlflow_model.MODULE,
        requirements=[f"spml-dist=={__version__}"],
        inputs=mlflow_model.INPUTS,
        outputs=mlflow_model.OUTPUTS,
        example={mlflow_model.IMAGE: [mlflow_model.example()]},
        facts={key: info[key] for key in ("classes", "background", "step", "crop", "longer_side")},
    )
    try:
        return mlflow_client.log_model(uri, run_id, model, register)
    except Exception as trouble:  # whatever MLflow, its database or the network come up with
        remedy = f"{export_folder} is whole; try again when MLflow answers"
        raise RunError(
            f"MLflow at {mlflow_sync.shown(uri)} did not take the model", mlflow_sync.line(trouble), remedy
        ) from trouble
