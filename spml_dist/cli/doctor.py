"""`spml-dist doctor`: whether a machine can train, and what to do where it cannot."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from spml_dist.cli.arguments import add_verb
from spml_dist.files.write import write_json

EXAMPLES = """\
examples:
  spml-dist doctor                                     # this machine
  spml-dist doctor configs/quickstart.yaml             # and what an experiment needs
  spml-dist doctor configs/mine.yaml output=/shared/runs --json doctor.json
  spml-dist doctor configs/mine.yaml --address HEAD:6379                       # every node of a cluster
  spml-dist submit --address http://HEAD:8265 -- doctor configs/mine.yaml      # the same from outside

Looks at versions, limits and memory; with an experiment also at what a worker will need of it, at its output
folder, data and MLflow. On a cluster, which --address or RAY_ADDRESS names, at every node, and whether they
are alike, reach one another, see the same storage and have the same time.
Exit status: 0 where all is well, 2 where something is to be done.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    about = "Look whether this machine, and what an experiment needs, are ready for a training."
    parser = add_verb(subparsers, "doctor", "look whether a training can start here", about, EXAMPLES)
    parser.add_argument("config", type=Path, nargs="?", metavar="CONFIG", help="experiment, a YAML file")
    changes = "changes to it, by dotted key"
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=changes)
    address = "look at every node of this Ray cluster (default: RAY_ADDRESS, else this machine alone)"
    parser.add_argument("--address", metavar="HOST:PORT", help=address)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the findings as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print each finding as it comes."""
    from spml_dist.config import explain
    from spml_dist.training import doctor, node_doctor
    from spml_dist.training.absolute_paths import absolute

    config = absolute(explain(args.config, args.overrides)[0], Path.cwd()) if args.config else None
    if args.address:
        os.environ["RAY_ADDRESS"] = args.address
    examined = node_doctor.examine(config) if os.environ.get("RAY_ADDRESS") else doctor.examine(config)
    findings = []
    for finding in examined:
        findings.append(finding)
        print(f"{'ok  ' if finding.well else 'BAD '} {finding.name}: {finding.value}", flush=True)
        if not finding.well:
            print(f"      {finding.remedy}", flush=True)
    bad = sum(not finding.well for finding in findings)
    if args.json is not None:
        write_json(args.json, [asdict(finding) | {"well": finding.well} for finding in findings])
    print(f"{bad} of {len(findings)} to look at" if bad else "all is well")
    return 2 if bad else 0
