"""`spml-dist report`: a page about a run, at any moment of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from spml_dist.cli.arguments import add_verb
from spml_dist.errors import RunError
from spml_dist.files.write import require_place, write_text
from spml_dist.run_folder import RunFolder

EXAMPLES = """\
examples:
  spml-dist report runs/quickstart                 # while it trains, after a crash, or at the end
  spml-dist report runs/quickstart --json run.json

RUN/report.html needs no other file and no network. Training and `spml-dist evaluate` write it too.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    parser = add_verb(
        subparsers,
        "report",
        "write a page about a run: curves, previews, results",
        "Write RUN/report.html from whatever the run has left so far: curves of each relation, "
        "seconds of each phase, memory, previews, IoU of each class, confusion, configuration.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="run folder that `spml-dist train` wrote")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write what the page shows as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    require_run(args.folder)
    from spml_dist.report import write_report
    from spml_dist.report.contents import read
    from spml_dist.report.summary import headline, summary

    if args.json is not None:
        require_place(args.json)
    path = write_report(args.folder)
    contents = read(args.folder)
    if args.json is not None:
        write_text(args.json, json.dumps(summary(contents), indent=2, ensure_ascii=False, default=str) + "\n")
    for name, value in headline(contents).items():
        print(f"{value:>10}  {name}")
    print(f"wrote {path}")
    return 0


def require_run(folder: Path) -> None:
    """RunError unless `spml-dist train` made the folder."""
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder", None, "give the folder that `spml-dist train` wrote")
    if not RunFolder(folder).config.exists():
        raise RunError(
            f"{folder} is no run folder: it has no config.yaml",
            None,
            "give the folder that `spml-dist train` wrote, OUTPUT/NAME",
        )
