"""`spml-dist classify`: a classifier on a run's finished embedding."""

from __future__ import annotations

import argparse
from pathlib import Path

from spml_dist.cli.arguments import add_verb
from spml_dist.cli.report import require_run
from spml_dist.cli.train import add_alone

EXAMPLES = """\
examples:
  spml-dist classify runs/mine                             # of the run's own weak labels: RUN/stages/s1
  spml-dist classify runs/mine --labels data/mine/walked   # of labels made from them: RUN/stages/s2
  spml-dist classify runs/mine classifier.steps=500 engine.workers=4 --out short
  spml-dist evaluate runs/mine/stages/s1 --split val

Backbone and embedding stay as the run's training left them. RUN/stages/NAME is a run folder: it resumes by
the same command, stops, is tracked and evaluated as one of `spml-dist train`, and its export holds the whole
network. `spml-dist refine` does this and what comes before and after.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        "classify",
        "train a classifier on a run's finished embedding",
        "Train a classifier on the embedding of a finished run, which stays as it is. The same command "
        "resumes.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="run folder that `spml-dist train` wrote")
    changes = "changes to the run's configuration, above all to classifier.*"
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=changes)
    labels = "packed images with the labels to learn from (default: those that the run was trained on)"
    parser.add_argument("--labels", metavar="PACK", help=labels)
    out = "name of the folder in RUN/stages (default: s1, with --labels s2)"
    parser.add_argument("--out", metavar="NAME", help=out)
    add_alone(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train to the end, and say what comes next."""
    require_run(args.folder)
    from spml_dist.config import load
    from spml_dist.training.classify import classify
    from spml_dist.training.launch import from_here, is_beside_rank_zero

    stage = classify(args.folder, args.labels, args.out, args.overrides, alone=args.alone)
    if is_beside_rank_zero():
        return 0
    data = load(stage / "config.yaml").data
    split = next(name for name in ("val", "test", "train") if getattr(data, name))
    print(f"trained; evaluate with: spml-dist evaluate {from_here(stage)} --split {split}", flush=True)
    return 0
