"""`spml-dist query`: the nearest segments of a picture, a segment or a class."""

from __future__ import annotations

import argparse
from pathlib import Path

from spml_dist.cli.arguments import add_verb, at_least

EXAMPLES = """\
examples:
  spml-dist query index/gid15 --image field.jpg --at 120,80
  spml-dist query index/gid15 --image field.jpg --html field.html           # all of its segments
  spml-dist query index/gid15 --segment gid15-train/0001/12 -k 50 --other-pictures
  spml-dist query index/gid15 --class river --tags "river and not (lake or pond)" --per-picture 1
  spml-dist query index/gid15 --queries questions.jsonl --parquet answers.parquet
  spml-dist query index/gid15 --score                                       # beside ImageNet features

questions.jsonl holds one object a line: {"image": FILE, "at": [x, y]}, {"segment": ID} or {"class": NAME}.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        "query",
        "find the segments that are most like one",
        "Find the segments of an index that are most like one of a picture, of the index, or of a class.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="index that `spml-dist index` wrote")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--image", metavar="FILE", type=Path, help="all its segments, or the one --at a pixel")
    asked.add_argument("--segment", metavar="ID", help="PACK/KEY/NUMBER, or a row")
    asked.add_argument("--class", metavar="NAME", dest="label", help="the mean of the segments labelled so")
    asked.add_argument("--queries", metavar="FILE", type=Path, help="many queries, JSON lines")
    asked.add_argument(
        "--score", action="store_true", help="precision, recall and purity on labelled segments"
    )
    parser.add_argument("--at", metavar="X,Y", type=_pixel, help="pixel of --image")
    parser.add_argument("-k", metavar="N", type=at_least(1), default=20, help="answers (default: 20)")
    parser.add_argument(
        "--only", metavar="CLASS", action="append", default=[], help="of this class; may repeat"
    )
    parser.add_argument(
        "--tags", metavar="EXPRESSION", default="", help="classes with and, or, not, brackets"
    )
    parser.add_argument("--other-pictures", action="store_true", help="none of the segment's own picture")
    parser.add_argument("--per-picture", metavar="N", type=at_least(1), help="at most N of one picture")
    parser.add_argument("--least", metavar="COSINE", type=float, default=-1.0, help="least similarity")
    parser.add_argument(
        "--area", metavar="FROM,TO", type=_shares, default=(0.0, 1.0), help="shares of the picture"
    )
    written = parser.add_mutually_exclusive_group()
    written.add_argument("--json", action="store_true", help="print JSON lines instead of a table")
    written.add_argument("--parquet", metavar="FILE", type=Path, help="write Parquet")
    written.add_argument("--html", metavar="FILE", type=Path, help="write a page with pictures")
    parser.add_argument(
        "--run", metavar="RUN", type=Path, dest="trained", help="the index's run, if it has moved"
    )
    parser.add_argument("--backbone", metavar="NAME", help="with --score: timm's network to stand beside")
    parser.add_argument("--verify", action="store_true", help="compare all files with their digests first")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, and show what was found."""
    from spml_dist.files.write import require_place
    from spml_dist.retrieval import questions, results, score
    from spml_dist.retrieval.collection import open_index

    if place := args.parquet or args.html:
        require_place(place)
    collection = open_index(args.folder, args.trained, verify=args.verify or None)
    if args.score:
        numbers = score.score(collection, args.k, backbone=args.backbone)
        print(questions.as_json(numbers) if args.json else score.table(numbers))
        return 0
    limits = {
        **{"k": args.k, "only": args.only, "tags": args.tags, "other_pictures": args.other_pictures},
        **{"per_picture": args.per_picture, "least_similarity": args.least, "area": args.area},
    }
    if args.queries:
        answers = questions.answered(collection, args.queries, limits)
    else:
        asked = {"image": args.image, "at": args.at, "segment": args.segment, "label": args.label}
        answers = collection.query(**asked, **limits)
    if args.parquet:
        results.write_parquet(answers, args.parquet)
    elif args.html:
        results.write_page(collection, answers, args.html)
    else:
        print(
            results.json_lines(answers) if args.json else results.table(answers),
            end="" if args.json else "\n",
        )
    if place:
        print(f"wrote {sum(len(each.neighbours) for each in answers):,} answers to {place}")
    return 0


def _pixel(text: str) -> tuple[int, int]:
    x, _, y = text.partition(",")
    if not (x.strip().isdecimal() and y.strip().isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: give two whole numbers, X,Y")
    return int(x), int(y)


def _shares(text: str) -> tuple[float, float]:
    try:
        least, most = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give two shares, such as 0.01,0.5") from None
    return least, most
