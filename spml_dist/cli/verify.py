"""`spml-dist verify`: read every byte of a pack and compare it with its manifest."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from spml_dist.cli.arguments import add_verb
from spml_dist.errors import DataError

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
    from spml_dist.files import address
    from spml_dist.files.write import write_json

    reports = [_verified(folder) for folder in _packs(arguments.out)]
    print(_table(reports))
    if arguments.json:
        write_json(arguments.json, {report["folder"]: report for report in reports})
    broken = [(report, problem) for report in reports for problem in report["problems"]]
    if broken:
        report, first = broken[0]
        key = f", {first['key']}" if first["key"] else ""
        raise DataError(
            f"{address.join(report['folder'], first['tar'])}{key}: {first['problem']}",
            f"{len(broken)} problems" if len(broken) > 1 else "1 problem",
            "pack again, or copy the file again from where it was packed",
        )
    return 0


def _packs(out: str) -> list[str]:
    from spml_dist.data.format.manifest import FILE
    from spml_dist.files import address

    if address.is_remote(out) or (Path(out) / FILE).exists():
        return [out]
    return sorted(str(path.parent) for path in Path(out).glob(f"*/{FILE}")) or [out]


def _verified(folder: str) -> dict[str, Any]:
    from tqdm import tqdm

    from spml_dist.data.format.verify import verify

    pause = 0.2 if sys.stderr.isatty() else 10  # seconds; a log file gets few lines
    return verify(folder, lambda shards: tqdm(shards, desc=folder, unit=" tars", mininterval=pause))


def _table(reports: list[dict[str, Any]]) -> str:
    width = max(len(report["folder"]) for report in reports)
    lines = [f"{'folder':<{width}}  {'samples':>8}  {'shards':>6}  {'MB':>9}  {'problems':>8}"]
    for report in reports:
        size, problems = report["bytes"] / 1e6, len(report["problems"])
        numbers = f"{report['samples']:>8}  {report['shards']:>6}  {size:>9.1f}  {problems:>8}"
        lines.append(f"{report['folder']:<{width}}  {numbers}")
        for problem in report["problems"]:
            where = " ".join(filter(None, (problem["tar"], problem["key"])))
            lines.append(f"  {where}: {problem['problem']}")
    return "\n".join(lines)
