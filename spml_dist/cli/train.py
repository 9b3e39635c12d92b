"""`spml-dist train`: launch or resume a training run."""

from __future__ import annotations

import argparse
from pathlib import Path

from spml_dist.cli.arguments import add_verb
from spml_dist.config import explain

EXAMPLES = """\
examples:
  spml-dist train configs/quickstart.yaml
  spml-dist train configs/gid15_scribble.yaml engine.workers=1 schedule.steps=500 name=short
  spml-dist train configs/quickstart.yaml          # once more: goes on where it stopped
  spml-dist train configs/quickstart.yaml --alone  # this process alone, for a debugger
  torchrun --nproc-per-node 2 -m spml_dist train configs/quickstart.yaml

Ray starts on this machine by itself, or RAY_ADDRESS names a cluster. Under torchrun its processes are the
workers, without Ray. However it is launched, and with however many workers, the same run goes on. The run
folder is OUTPUT/NAME: config.yaml, metrics.jsonl, train.log, checkpoints/, previews/, export/,
system/, mlflow.json, report.html.

Ctrl-C or SIGTERM saves after the step that is being made and leaves with status 75 (torchrun has a
status of its own); a second one stops at once.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        "train",
        "train from packed shards; the same command resumes",
        "Train from packed shards on Ray workers with DeepSpeed. The same command resumes.",
        EXAMPLES,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every verb that trains takes."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="experiment, a YAML file")
    changes = "changes to it, by dotted key"
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=changes)
    add_alone(parser)


def add_alone(parser: argparse.ArgumentParser) -> None:
    """The option that trains without workers."""
    parser.add_argument(
        "--alone",
        action="store_true",
        help="train in this process, without Ray and without DeepSpeed; engine.workers and engine.zero_stage "
        "then do not matter",
    )


def run(args: argparse.Namespace) -> int:
    """Train to the end, and say what comes next."""
    from spml_dist.training.absolute_paths import absolute
    from spml_dist.training.launch import folder_of, from_here, launch

    config, origins = explain(args.config, args.overrides)
    config = absolute(config, Path.cwd())
    if launch(config, alone=args.alone, origins=origins):
        split = next(name for name in ("val", "test", "train") if getattr(config.data, name))
        folder = from_here(folder_of(config).path)
        print(f"trained; evaluate with: spml-dist evaluate {folder} --split {split}", flush=True)
    return 0
