"""The `sample` recipe of `spml-dist pack`: its options and its help."""

from __future__ import annotations

import argparse

from spml_dist.cli.arguments import add_verb, at_least
from spml_dist.cli.recipes.options import add_output

EXAMPLES = """\
examples:
  spml-dist pack sample --out data/sample
  spml-dist pack sample --out data/large --images 2000 --val 200 --size 224 --seed 7
"""


def add(recipes: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the recipe. Returns its parser."""
    parser = add_verb(
        recipes,
        "sample",
        "generated scenes with scribbles",
        "Draw scenes of textured shapes that occur together in patterns, with scribbles and whole masks, and "
        "pack them into OUT/train and OUT/val. Nothing is downloaded.",
        EXAMPLES,
    )
    numbers = (
        ("--images", "N", 1, 160, "for training"),
        ("--val", "N", 1, 40, "held out"),
        ("--size", "PIXELS", 1, 160, "of a side"),
        ("--seed", "S", 0, 0, "of the scenes"),
    )
    for option, metavar, least, default, text in numbers:
        help = f"{text} (default: {default})"
        parser.add_argument(option, metavar=metavar, type=at_least(least), default=default, help=help)
    add_output(parser, 32)
    parser.set_defaults(strict=True)
    return parser
