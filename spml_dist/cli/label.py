"""`spml-dist label`: pseudo-labels for a whole pack, by a trained network."""

from __future__ import annotations

import argparse
from pathlib import Path

from spml_dist.cli.arguments import add_verb, at_least, tell_rejected
from spml_dist.cli.report import require_run

EXAMPLES = """\
examples:
  spml-dist label runs/mine data/mine/train --out data/mine/labels
  spml-dist label runs/mine data/mine/train --out data/mine/labels --workers 4
  spml-dist label runs/mine data/tags --out data/labels --cam runs/mine_cam       # tags alone: maps first
  spml-dist label runs/mine data/mine/train --out data/mine/labels --by walk+neighbours labeling.neighbours=10
  spml-dist label runs/mine data/more --out data/more-labels --by neighbours --index data/mine/train

Labelers, alone or one after the other with + between:
  walk        the classifier's scores spread along the embedding
  cam-walk    activation maps of an image's tags spread along it (needs --cam)
  cam         activation maps as they are, as `spml-dist cam infer` labels (needs --cam)
  neighbours  votes of the nearest labelled segments of the collection
auto walks where pixels or boxes are annotated. Where tags are all there is it walks the activation maps, if
--cam is given, and then asks the neighbours. What people annotated never changes. Each stage before the last
leaves its pack in OUT-STAGE. The same command goes on where it was interrupted.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    about = "label every pixel of a pack by a trained network"
    parser = add_verb(
        subparsers,
        "label",
        about,
        "Pseudo-labels for a collection, as a new pack that `train` reads like any other.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="run folder that `spml-dist train` wrote")
    parser.add_argument("shards", metavar="PACK", help="folder or address of the pack to label")
    overrides = "changes to labeling.* and evaluation.* of the run, and to cam.* of --cam"
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=overrides)
    parser.add_argument("--out", required=True, help="folder or address to write the new pack to")
    parser.add_argument("--by", metavar="LABELERS", default="auto", help="default: auto, as told below")
    cam = "run folder that `spml-dist cam train` wrote"
    parser.add_argument("--cam", metavar="RUN", type=Path, help=cam)
    index = "pack whose labelled segments are the neighbours (default: the pack that is labelled)"
    parser.add_argument("--index", metavar="PACK", help=index)
    workers = "processes that label side by side, on the Ray cluster of RAY_ADDRESS if it is set (default: 1)"
    parser.add_argument("--workers", metavar="N", type=at_least(1), default=1, help=workers)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Label stage by stage, and print how good the labels of each are."""
    require_run(args.folder)
    from spml_dist.labeling.label_pack import label_pack
    from spml_dist.labeling.label_quality import table

    given = (args.folder, args.shards, args.out, args.by, args.cam, args.index, args.overrides, args.workers)
    status = 0
    for place, result in label_pack(*given):
        print(f"{result['by']}: {table(result)}")
        for name, images in result["unreachable"].items():
            print(f"no labelled segment of {name}, which tags of {images} images promise: none gets it")
        print(f"\nwritten to {place}\n", flush=True)
        status = max(status, tell_rejected(result, place))
    print(f"train with: spml-dist train CONFIG data.train={args.out}")
    return status
