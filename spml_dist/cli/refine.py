"""`spml-dist refine`: everything that comes after a run's training."""

from __future__ import annotations

import argparse
from pathlib import Path

from spml_dist.cli.arguments import add_verb, at_least
from spml_dist.cli.report import require_run
from spml_dist.cli.train import add_alone

EXAMPLES = """\
examples:
  spml-dist refine runs/mine
  spml-dist refine runs/mine --workers 4 classifier.steps=500
  spml-dist refine runs/tags --cam runs/tags_cam    # tags alone: activation maps say where they are
  spml-dist evaluate runs/mine/stages/s2 --split test

By the labels that the run was trained with:
  pixels, boxes   a classifier of the weak labels (s1), its scores spread along the embedding (walk), a
                  classifier of those labels (s2)
  tags alone      activation maps spread along the embedding (cam-walk), votes of the nearest segments
                  (neighbours-1), s1, its scores (scores), votes once more (neighbours-2), s2
Where there are images of both, each takes part in the stages of its own labels. Stages are folders in
RUN/stages; one that is done is passed over, so the same command goes on where it was interrupted. s2 is the
result. RUN/refinement.json has what each stage came to.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        "refine",
        "make labels of all pixels and a classifier of them",
        "From a finished run to the paper's final classifier: labels of all pixels by random walk and "
        "nearest segments, and classifiers on the finished embedding. The same command goes on.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="run folder that `spml-dist train` wrote")
    changes = "changes to the run's configuration, above all to classifier.* and labeling.*"
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=changes)
    cam = "run folder that `spml-dist cam train` wrote (default: RUN_cam, where tags need one)"
    parser.add_argument("--cam", metavar="RUN", type=Path, help=cam)
    workers = "processes that label side by side (default: 1); those that train are engine.workers"
    parser.add_argument("--workers", metavar="N", type=at_least(1), default=1, help=workers)
    add_alone(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Refine, and print what each stage came to."""
    require_run(args.folder)
    from spml_dist.training.refine import refine, table

    given = {"cam": args.cam, "workers": args.workers, "alone": args.alone}
    refinement = refine(args.folder, args.overrides, **given)
    if refinement["stages"]:
        print(f"\n{table(refinement)}\n\nwrote {args.folder / 'refinement.json'}")
    else:
        print("nothing was measured: no split has masks")
    return 0
