"""`spml-dist audit`: annotated segments whose neighbours disagree with their label."""

from __future__ import annotations

import argparse
from pathlib import Path

from spml_dist.cli.arguments import add_verb, at_least

EXAMPLES = """\
examples:
  spml-dist audit index/gid15
  spml-dist audit index/gid15 -n 200 --json suspects.json --html suspects.html

The JSON lists image, box, point and class of each, most suspicious first, for labelling tools to filter by.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        "audit",
        "list labels that their neighbours contradict",
        "List annotated segments whose nearest annotated ones of other pictures have another label.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="index that `spml-dist index` wrote")
    parser.add_argument(
        "-k", metavar="N", type=at_least(1), default=20, help="neighbours that vote (default: 20)"
    )
    parser.add_argument(
        "-n", metavar="N", type=at_least(1), default=50, help="segments to show (default: 50)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all of them as JSON")
    parser.add_argument(
        "--html", metavar="FILE", type=Path, help="write a page with pictures of the shown ones"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look, print the most suspicious, and write what was asked for."""
    from spml_dist.files.write import require_place, write_json
    from spml_dist.retrieval import audit, results
    from spml_dist.retrieval.collection import open_index

    for path in filter(None, (args.json, args.html)):
        require_place(path)
    collection = open_index(args.folder)
    found = audit.audit(collection, args.k, progress=True)
    shown = found[: args.n]
    print(audit.table(collection, shown))
    print(f"{len(found):,} segments are contradicted, {len(shown):,} shown")
    if args.json:
        write_json(args.json, audit.records(collection, found), sort_keys=False)
    if args.html:
        results.write_page(collection, audit.answers(collection, shown), args.html)
    for path in filter(None, (args.json, args.html)):
        print(f"wrote {path}")
    return 0
