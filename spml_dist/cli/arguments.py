"""What the verbs' command lines have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any


def add_verb(
    subparsers: argparse._SubParsersAction, name: str, help: str, description: str, epilog: str
) -> argparse.ArgumentParser:
    """A verb's parser. help: its line among the others; epilog: examples, as they are typed."""
    return subparsers.add_parser(
        name,
        help=help,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


SOME_REJECTED = 3
"""exit status: done, but for images that could not be read"""


def tell_rejected(note: Mapping[str, Any], out: str) -> int:
    """Say how many images of a pack could not be labelled, and return the exit status.

    note: with what `LabelledPack.write` returns; out: where it has written.
    """
    if not note["rejected"]:
        return 0
    print(
        f"images that could not be read: {note['rejected']:,}, named in {out}/rejected.jsonl", file=sys.stderr
    )
    return SOME_REJECTED


MOST = 10**9
"""of any number that is counted with"""


def at_least(least: int, most: int = MOST) -> Callable[[str], int]:
    """The type of an option that takes a whole number."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text[:20]) < least:
            raise argparse.ArgumentTypeError(f"{text[:40]!r}: give a whole number of at least {least}")
        if int(text[:20]) > most:
            raise argparse.ArgumentTypeError(f"{text[:40]!r}: give a whole number of at most {most:,}")
        return int(text)

    return number


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse; `key=value` may follow options too, which argparse by itself calls unrecognised."""
    arguments, rest = parser.parse_known_args(argv)
    late = [word for word in rest if "=" in word and not word.startswith("-")]
    if late != rest or (late and not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if late:
        arguments.overrides = [*arguments.overrides, *late]
    return arguments
