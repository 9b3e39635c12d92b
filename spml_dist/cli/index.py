"""`spml-dist index`: every segment of packs, by a run's network, to be asked about."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spml_dist.cli.arguments import add_verb, at_least

EXAMPLES = """\
examples:
  spml-dist index runs/quickstart --out index/quickstart
  spml-dist index runs/gid15 data/gid15/train data/gid15/val --out index/gid15 --workers 8
  spml-dist index runs/gid15 data/new/train --out index/gid15 --add  # appends, replaces what was packed anew
  spml-dist index runs/gid15 --from-bank --out index/bank            # in seconds, with boxes for outlines

Whole pictures are cut as `evaluation` of the run's configuration says. Workers are processes of this machine,
or Ray tasks where RAY_ADDRESS names a cluster; the index is the same, byte for byte. An interrupted build
goes on where it was.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        "index",
        "index every segment of packs, to ask for its like",
        "Index every segment of packs by a trained run: FAISS and Parquet in one folder.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="run folder with a trained network")
    parser.add_argument(
        "packs", metavar="PACK", nargs="*", default=[], help="packed folders; default: data.train of the run"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the index")
    parser.add_argument("--workers", metavar="N", type=at_least(1), default=1, help="default: 1")
    parser.add_argument("--add", action="store_true", help="keep what DIR holds of other pictures")
    parser.add_argument(
        "--from-bank", action="store_true", help="index the bank of the newest checkpoint instead"
    )
    kinds = ("exact", "ivf", "ivf-sq", "ivf-pq")
    parser.add_argument("--kind", choices=kinds, help="of the FAISS index; default: by its size")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build, and say what the index is."""
    from spml_dist.errors import ConfigError

    if args.from_bank:
        from spml_dist.retrieval.from_bank import index_bank

        if args.add:
            raise ConfigError("--add: a bank is indexed as a whole", "--from-bank", "leave one of them away")
        changes = index_bank(args.folder, args.packs, args.out, kind=args.kind)
    else:
        from spml_dist.retrieval.build import build_index

        options = {"workers": args.workers, "add": args.add, "kind": args.kind, "device": args.device}
        changes = build_index(args.folder, args.packs, args.out, progress=True, **options)
    infos = changes.infos
    print(f"wrote {infos['nb vectors']:,} segments to {args.out}: {infos['index_key']}", end="")
    print(f", recall@20 {infos['recall@20']:.3f} at {infos['probes']} lists" if infos["probes"] else "")
    print(f"pictures added {changes.added:,}, replaced {changes.replaced:,}, removed {changes.removed:,}")
    for what, why in infos["lacks"].items():
        print(f"no {what}: {why}", file=sys.stderr)
    if changes.unreadable:
        some = ", ".join(changes.unreadable[:3])
        more = f"{some}{', …' * (len(changes.unreadable) > 3)}"
        print(f"{len(changes.unreadable)} images do not decode and are in no row: {more}", file=sys.stderr)
    return 0
