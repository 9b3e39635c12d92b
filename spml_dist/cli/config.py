"""`spml-dist config`: the resolved experiment and where each value came from."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from spml_dist.config import flat, load, origins
from spml_dist.errors import ConfigError


def add(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "config",
        help="check an experiment and print it with where each value came from",
        description="Check an experiment and print it, resolved, with where each value came from.",
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
        _write(arguments.json, {key: {"value": value, "origin": origin} for key, value, origin in found})
    lines = flat.lines(config)
    place = {key: origin for key, _, origin in found}
    width = max(len(text) for text, _ in lines) + 2
    for text, key in lines:
        print(f"{text:{width}}# {place[key]}" if key else text)
    return 0


def _write(path: Path, content: dict) -> None:
    aside = path.with_name(f"{path.name}.tmp")
    try:
        aside.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(aside, path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", None, "give another --json FILE"
        ) from error
