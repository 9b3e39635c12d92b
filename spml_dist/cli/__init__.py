"""The command line. A user's mistake is one line and exit status 2.

A verb is a module with `add(subparsers)`, which sets the default `run`, a function from the parsed arguments
to the exit status; `key=value` overrides go by the name `overrides`.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import traceback
from collections.abc import Sequence

from spml_dist import __version__
from spml_dist.cli import (
    audit,
    bank,
    cam,
    classify,
    config,
    doctor,
    evaluate,
    export,
    index,
    label,
    pack,
    predict,
    preview,
    query,
    refine,
    report,
    serve,
    stop,
    submit,
    suggest,
    track,
    train,
    verify,
)
from spml_dist.cli.arguments import parse
from spml_dist.errors import SpmlError, Stopped

VERBS = (
    pack,
    preview,
    verify,
    config,
    cam,
    train,
    label,
    classify,
    refine,
    evaluate,
    predict,
    report,
    track,
    bank,
    index,
    query,
    serve,
    audit,
    suggest,
    export,
    doctor,
    submit,
    stop,
)

EXAMPLES = """\
the whole path, from generated scenes to a table:
  spml-dist pack sample --out data/sample
  spml-dist preview data/sample/train --out sample.png  # images, labels, regions on one sheet
  spml-dist verify data/sample
  spml-dist config configs/quickstart.yaml engine.workers=1
  spml-dist train configs/quickstart.yaml
  spml-dist evaluate runs/quickstart --split val
  spml-dist predict runs/quickstart data/sample/val --out predictions
  spml-dist refine runs/quickstart        # labels of all pixels, and a classifier of them
  spml-dist report runs/quickstart        # at any moment of the training
  spml-dist bank inspect runs/quickstart  # which segments it remembers
  spml-dist export runs/quickstart --format onnx  # the network, for use elsewhere

on a Ray cluster, as a job:
  spml-dist submit configs/quickstart.yaml --address http://HEAD:8265

its segments, asked about:
  spml-dist index runs/quickstart --out index
  spml-dist query index --class circle --html circles.html
  spml-dist serve index                   # a page to click on
  spml-dist audit index                   # labels that their neighbours contradict
  spml-dist suggest index -n 20           # where the next clicks would help most

one's own images, a folder with images/, weak/, masks/ of val, classes.txt, meta.json and the splits' lists:
  spml-dist pack folder DIR --labels scribbles --split train --out data/mine/train
  spml-dist pack folder DIR --labels scribbles --split val --out data/mine/val
  spml-dist train configs/gid15_scribble.yaml name=mine data.train=data/mine/train data.val=data/mine/val
  spml-dist evaluate runs/mine

`spml-dist VERB --help` tells more. Exit status: 0, 2 for a mistake in what was given, 3 where `predict`,
`label` or `cam infer` could not read some of the images and labelled the others, 75 for a training
that was asked to stop and saved (the same command goes on), 130 and 143 when interrupted at once.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit status: the verb's own, 2 for a mistake, 130 after an interrupt."""
    # Threads that wait for one another sleep: spinning on a core that others use can take ten times as long.
    # OpenMP reads it when torch is imported, which the verbs do.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in argv
    try:
        status = _run([word for word in argv if word != "--debug"])
        sys.stdout.flush()
        return status
    except SpmlError as error:
        if debug:
            traceback.print_exc()
        print(f"spml-dist: {'' if isinstance(error, Stopped) else 'error: '}{error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt as interrupt:
        if debug:
            traceback.print_exc()
        print("; ".join(filter(None, ("spml-dist: interrupted", str(interrupt)))), file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone (`| head`); without this the interpreter complains when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(argv: list[str]) -> int:
    parser, verbs = _parser()
    verb = next((word for word in argv if not word.startswith("-")), None)
    if verb is not None and verb not in verbs:
        near = difflib.get_close_matches(verb, verbs, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(verbs)}"
        raise SpmlError(f"{verb} is not a verb", None, hint)
    try:
        arguments = parse(parser, argv)
        return arguments.run(arguments)
    except SystemExit as stop:  # --help, --version and usage errors
        return int(stop.code or 0)


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    parser = argparse.ArgumentParser(
        prog="spml-dist",
        description="Weakly supervised segmentation by pixel-to-segment contrastive learning, distributed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"spml-dist {__version__}")
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error, anywhere on the line"
    )
    subparsers = parser.add_subparsers(metavar="VERB", required=True, dest="verb", title="verbs")
    for module in VERBS:
        module.add(subparsers)
    return parser, list(subparsers.choices)
