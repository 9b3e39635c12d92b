"""`spml-dist verify`: read every byte of a pack and compare it with its manifest."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spml_dist.cli.arguments import add_verb
from spml_dist.tables import table

NAME = "verify"

EXAMPLES = """\
checks that every tar has the manifest's size and sha256, that every sample is complete and decodes, that
labels are classes and maps have their image's size, and that keys and counts agree.

examples:
  spml-dist verify data/sample
  spml-dist verify data/mine/train --json report.json
  spml-dist verify s3://bucket/mine/train          # fetches every tar
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        NAME,
        "check packed shards against their manifest",
        "Check packed shards, byte by byte and sample by sample, against their manifest.",
        EXAMPLES,
    )
    parser.add_argument(
        "out", metavar="OUT", help="a packed folder or its address, or a local folder of packed folders"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what is wrong with each pack, and write it as JSON too."""
    from spml_dist.data.format.verify import packs_at, require_sound, verify
    from spml_dist.files.write import write_json

    reports = [verify(folder, progress=True) for folder in packs_at(arguments.out)]
    print(_table(reports))
    if arguments.json:
        write_json(arguments.json, {report["folder"]: report for report in reports})
    require_sound(reports)
    return 0


def _table(reports: Sequence[dict[str, Any]]) -> str:
    titles = "folder", "samples", "shards", "MB", "problems"
    rows = [
        (each["folder"], each["samples"], each["shards"], f"{each['bytes'] / 1e6:.1f}", len(each["problems"]))
        for each in reports
    ]
    head, *lines = table(titles, rows).splitlines()
    problems = ["".join(map(_line, report["problems"])) for report in reports]
    return "\n".join([head, *map(str.__add__, lines, problems)])


def _line(problem: dict[str, str | None]) -> str:
    where = " ".join(filter(None, (problem["tar"], problem["key"])))
    return f"\n  {where}: {problem['problem']}"
