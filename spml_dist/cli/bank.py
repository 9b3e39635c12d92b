"""`spml-dist bank inspect`: what a saved bank holds, counted from its rows."""

from __future__ import annotations

import argparse
from pathlib import Path

from spml_dist.cli.arguments import add_verb

EXAMPLES = """\
examples:
  spml-dist bank inspect runs/quickstart                            # of the newest checkpoint
  spml-dist bank inspect runs/quickstart/checkpoints/step_000400
  spml-dist bank inspect runs/quickstart --json bank.json

Every file is read and compared with the manifest by its digest: one that differs is named, with status 2.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    bank = add_verb(
        subparsers,
        "bank",
        "look into the bank of segments of a run",
        "Look into the bank of segments that a training saved.",
        EXAMPLES,
    )
    whats = bank.add_subparsers(metavar="WHAT", required=True, dest="what", title="what")
    parser = add_verb(
        whats,
        "inspect",
        "count its rows by class and age, and check them",
        "Count the rows of a saved bank by class and by age, and compare them with its manifest.",
        EXAMPLES,
    )
    parser.add_argument(
        "path", metavar="PATH", type=Path, help="run folder, checkpoint, or a checkpoint's bank folder"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the numbers as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the numbers, and write them as JSON too."""
    from spml_dist.bank.inspect import inspect, table
    from spml_dist.files.write import write_json

    numbers = inspect(args.path, progress=True)
    print(table(numbers))
    if args.json is not None:
        write_json(args.json, numbers)
    return 0
