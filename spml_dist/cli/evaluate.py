"""`spml-dist evaluate`: how good a trained run is on a split, by both read-outs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spml_dist.cli.arguments import add_verb, at_least
from spml_dist.cli.report import require_run
from spml_dist.cli.view_options import add_views, add_workers
from spml_dist.files.write import require_place, write_json

READ_OUTS = ("classifier", "neighbours")

EXAMPLES = """\
examples:
  spml-dist evaluate runs/quickstart
  spml-dist evaluate runs/gid15_scribble --split test --json test.json
  spml-dist evaluate runs/quickstart --oracle      # neighbours that are labelled with ground truth
  spml-dist evaluate runs/quickstart --pictures 20
  spml-dist evaluate runs/quickstart --scales 0.75,1,1.25 --mirror --crf --workers 2
  spml-dist evaluate runs/quickstart --readouts classifier evaluation.longer_side=512

The splits are those of RUN/config.yaml, packed with masks. Every image of data.train is a neighbour, and is
cut into segments first. Boundary IoU counts pixels within 2 % of the diagonal of their mask's edge.
Results by other views, with a CRF or of one read-out alone have files of their own: result_SPLIT_WAYS.json.
What key=value changes has not: `settings` in the file says by what it was made. Windows are the classifier's
alone.
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
    changes = "changes to its configuration"
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=changes)
    parser.add_argument("--split", choices=("val", "test", "train"), default="val", help="default: val")
    oracle = "label the neighbours' prototypes with ground truth, for comparison"
    parser.add_argument("--oracle", action="store_true", help=oracle)
    readouts = "by which to label: classifier, neighbours, or both (default)"
    parser.add_argument("--readouts", metavar="NAME[,NAME]", type=_names, default=READ_OUTS, help=readouts)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result here too")
    parser.add_argument(
        "--pictures", metavar="N", type=at_least(0), help="images to draw; default: evaluation.pictures"
    )
    add_views(parser)
    add_workers(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, and say what was written."""
    from spml_dist.inference.evaluate import EvaluateHow
    from spml_dist.inference.evaluate_run import evaluate_run

    require_run(args.folder)
    if args.json is not None:
        require_place(args.json)  # before the images, which take long
    how = EvaluateHow(
        args.readouts, args.oracle, args.scales, args.mirror, args.window, args.crf, args.workers
    )
    evaluation = evaluate_run(args.folder, args.split, how, pictures=args.pictures, overrides=args.overrides)
    if args.json is not None:
        write_json(args.json, evaluation.result, sort_keys=False)
    print(evaluation.table)
    print("\n".join(f"wrote {path}" for path in evaluation.files))
    if evaluation.untracked:
        print(evaluation.untracked, file=sys.stderr)
    return 0


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not set(names) <= set(READ_OUTS):
        raise argparse.ArgumentTypeError(f"{text!r}: give some of {', '.join(READ_OUTS)}")
    return tuple(name for name in READ_OUTS if name in names)
