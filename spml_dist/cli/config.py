"""`spml-dist config`: the resolved experiment and where each value came from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from spml_dist.cli.arguments import add_verb
from spml_dist.config import flatten, load, origins
from spml_dist.files.write import write_text

EXAMPLES = """\
examples:
  spml-dist config configs/quickstart.yaml
  spml-dist config configs/quickstart.yaml stream.batch=4 data.test=null --json resolved.json
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    parser = add_verb(
        subparsers,
        "config",
        "check an experiment and print it with where each value came from",
        "Check an experiment and print it, resolved, with where each value came from.",
        EXAMPLES,
    )
    parser.add_argument("file", metavar="FILE", help="an experiment, such as configs/quickstart.yaml")
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", help="such as stream.batch=4 or data.test=null"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write values and origins as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    config = load(arguments.file, arguments.overrides)
    found = origins(arguments.file, arguments.overrides)
    if arguments.json:
        told = {key: {"value": value, "origin": origin} for key, value, origin in found}
        write_text(arguments.json, json.dumps(told, indent=2) + "\n")
    lines = flatten.lines(config)
    place = {key: origin for key, _, origin in found}
    width = max(len(text) for text, _ in lines) + 2
    for text, key in lines:
        print(f"{text:{width}}# {place[key]}" if key else text)
    return 0
