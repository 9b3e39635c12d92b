"""`spml-dist evaluate`: how good a trained run is on a split, by both read-outs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spml_dist.cli.arguments import add_verb, at_least
from spml_dist.errors import RunError
from spml_dist.files.write import write_json

EXAMPLES = """\
examples:
  spml-dist evaluate runs/quickstart
  spml-dist evaluate runs/gid15_scribble --split test --json test.json
  spml-dist evaluate runs/quickstart --oracle      # neighbours that are labelled with ground truth
  spml-dist evaluate runs/quickstart --pictures 20

The splits are those of RUN/config.yaml, packed with masks. Every image of data.train is a neighbour, and is
cut into segments first.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        "evaluate",
        "measure a trained run on a split",
        "mIoU of a trained run by its classifier and by nearest neighbours; writes the result, images and "
        "the report into the run folder.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="run folder that `spml-dist train` wrote")
    parser.add_argument("--split", choices=("val", "test", "train"), default="val", help="default: val")
    oracle = "label the neighbours' prototypes with ground truth, for comparison"
    parser.add_argument("--oracle", action="store_true", help=oracle)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result here too")
    parser.add_argument(
        "--pictures", metavar="N", type=at_least(0), help="images to draw; default: evaluation.pictures"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, and say what was written."""
    from spml_dist.inference.evaluate_run import evaluate_run

    if args.json is not None:
        _require_place(args.json)  # before the images, which take long
    evaluation = evaluate_run(args.folder, args.split, oracle=args.oracle, pictures=args.pictures)
    if args.json is not None:
        write_json(args.json, evaluation.result, sort_keys=False)
    print(evaluation.table)
    print("\n".join(f"wrote {path}" for path in evaluation.files))
    if evaluation.untracked:
        print(evaluation.untracked, file=sys.stderr)
    return 0


def _require_place(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be written", error.strerror, "choose a writable place") from error
