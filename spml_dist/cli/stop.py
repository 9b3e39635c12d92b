"""`spml-dist stop`: ask a training to save and stop, from anywhere that sees its run folder."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from spml_dist.cli.arguments import add_verb, at_least
from spml_dist.cli.report import require_run
from spml_dist.errors import RunError
from spml_dist.run_folder import RunFolder

EXAMPLES = """\
examples:
  spml-dist stop runs/quickstart              # saves the step that is being made, and leaves with status 75
  spml-dist stop runs/quickstart --wait 120   # returns once it has, within two minutes

For machines that have to go, such as a pod's preStop hook: a signal to the process that launched the training
does the same. Where no training runs, the next one takes no notice.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    about = "Ask a training to save after the step that it is making, and to stop."
    parser = add_verb(subparsers, "stop", "ask a training to save and stop", about, EXAMPLES)
    parser.add_argument("folder", metavar="RUN", type=Path, help="run folder of the training")
    wait = "wait until it has stopped, so many at most; default: do not wait"
    parser.add_argument("--wait", metavar="SECONDS", type=at_least(0), default=0, help=wait)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, and wait for the answer: the training takes the request away when it has stopped."""
    require_run(args.folder)
    request = RunFolder(args.folder).stop
    try:
        request.touch()
    except OSError as problem:
        raise RunError(f"{request} cannot be written", problem.strerror, "stop it by a signal") from problem
    deadline = time.monotonic() + args.wait
    while request.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    if not args.wait:
        print("asked to save and stop")
        return 0
    if request.exists():
        what = f"{args.folder}: did not stop within {args.wait} s"
        raise RunError(what, None, "it is slower than that, or no training runs there")
    print("saved and stopped")
    return 0
