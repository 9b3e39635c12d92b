"""What the verbs' command lines have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable


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
