"""`spml-dist suggest`: where the next clicks would help most."""

from __future__ import annotations

import argparse
from pathlib import Path

from spml_dist.cli.arguments import add_verb, at_least

EXAMPLES = """\
examples:
  spml-dist suggest index/gid15 -n 100
  spml-dist suggest index/gid15 -n 100 --out data/raw/weak/points.json    # which `pack folder` reads

Points lie in unlabelled segments that stand for much of the collection and are unlike everything labelled.
Their classes are proposals of the network: look at them before you train on them.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        "suggest",
        "say where the next clicks would help most",
        "Choose unlabelled segments to click on: each stands for many that are unlike all labelled ones.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="index that `spml-dist index` wrote")
    parser.add_argument("-n", metavar="N", type=at_least(1), required=True, help="points")
    parser.add_argument("--pack", metavar="NAME", help="of this pack alone")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write points.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Choose, print, and write what was asked for."""
    from spml_dist.files.write import require_place, write_json
    from spml_dist.retrieval import suggest
    from spml_dist.retrieval.collection import open_index

    if args.out:
        require_place(args.out)
    collection = open_index(args.folder)
    found = suggest.suggest(collection, args.n, args.pack)
    print(suggest.table(collection, found))
    if args.out:
        write_json(args.out, suggest.points_json(collection, found))
        print(f"wrote {len(found):,} points to {args.out}")
    return 0
