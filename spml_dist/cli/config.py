"""`spml-dist config`: the resolved experiment and where each value came from."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from spml_dist.cli.arguments import add_verb
from spml_dist.config import dump, explain, reference
from spml_dist.config.flatten import leaves
from spml_dist.config.notices import unreached_dilations
from spml_dist.files.write import write_text

EXAMPLES = """\
examples:
  spml-dist config configs/quickstart.yaml
  spml-dist config configs/quickstart.yaml stream.batch=4 data.test=null --json resolved.json
  spml-dist config --reference > reference.yaml    # every key, its default and what it means
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    parser = add_verb(
        subparsers,
        "config",
        "check an experiment and print it with where each value came from",
        "Check an experiment and print every value with where it came from: default, FILE:LINE or override.",
        EXAMPLES,
    )
    parser.add_argument("file", metavar="FILE", help="an experiment, such as configs/quickstart.yaml")
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", help="such as stream.batch=4 or data.test=null"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write values and origins as JSON")
    parser.add_argument(
        "--reference",
        action=_Reference,
        nargs=0,
        help="print every key with its default and what it means instead: configs/reference.yaml",
    )
    parser.set_defaults(run=run)


class _Reference(argparse.Action):
    """Print the reference and end, as --help does: it needs no FILE."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(reference(), end="")
        parser.exit()


def run(arguments: argparse.Namespace) -> int:
    config, origins = explain(arguments.file, arguments.overrides)
    if arguments.json:
        rows = {key: {"value": value, "origin": origins[key]} for key, value in leaves(config).items()}
        write_text(arguments.json, json.dumps(rows, indent=2) + "\n")
    print(dump(config, origins), end="")
    if notice := unreached_dilations(config):
        print(f"spml-dist: {notice}", file=sys.stderr)
    return 0
