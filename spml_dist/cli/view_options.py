"""Options of the verbs that show images to a trained network."""

from __future__ import annotations

import argparse

from spml_dist.cli.arguments import at_least


def add_views(parser: argparse.ArgumentParser) -> None:
    """How the network sees an image: the mean over all views decides."""
    group = parser.add_argument_group("views")
    scales = "see every image at these factors of its size (default: 1)"
    group.add_argument("--scales", metavar="F[,F...]", type=_factors, default=(1.0,), help=scales)
    group.add_argument("--mirror", action="store_true", help="see its mirror image too")
    window = (
        "see it in overlapping windows of SIDE pixels, as large as the training's crops, instead of whole"
    )
    group.add_argument("--window", metavar="SIDE", type=at_least(16), help=window)
    crf = "refine the labels by a dense CRF along the image's edges (extra crf)"
    group.add_argument("--crf", action="store_true", help=crf)


def add_workers(group: argparse._ActionsContainer) -> None:
    """How many processes look at images."""
    workers = (
        "processes of one thread each, which give the same for any number of them, on the Ray cluster of "
    )
    workers += "RAY_ADDRESS if it is set (default: this process with all its threads)"
    group.add_argument("--workers", metavar="N", type=at_least(1), help=workers)


def _factors(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers, as 0.75,1,1.25") from error
