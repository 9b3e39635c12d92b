"""Options of `spml-dist pack` that say how marks become labelled pixels."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spml_dist.annotations.keypoints import Heat


def add_radius(parser: argparse._ActionsContainer, default: int) -> None:
    """--point-radius."""
    radius = f"of the disc that a point becomes, in pixels (default: {default})"
    parser.add_argument("--point-radius", metavar="R", type=_radius, default=default, help=radius)


def add_boxes(parser: argparse._ActionsContainer) -> None:
    """--boxes."""
    inside = (
        "what labels the inside of boxes: cam leaves it unlabelled, for `spml-dist cam infer` (default); "
        "geometry labels the middle fifth of each"
    )
    parser.add_argument("--boxes", choices=("cam", "geometry"), default="cam", help=inside)


def add_heat(parser: argparse._ActionsContainer) -> None:
    """--keypoint-sigma, --heat-high and --heat-low; `heat` reads them."""
    sigma = "width of a keypoint's heat map, in pixels (default: 3 %% of the picture's diagonal)"
    parser.add_argument("--keypoint-sigma", metavar="S", type=float, help=sigma)
    high = "a pixel this hot takes its keypoint's class: within 1.18 S (default: %(default)s)"
    parser.add_argument("--heat-high", metavar="H", type=float, default=0.5, help=high)
    low = "a pixel less hot than this is background: beyond 2.80 S (default: %(default)s)"
    parser.add_argument("--heat-low", metavar="H", type=float, default=0.02, help=low)


def heat(arguments: argparse.Namespace) -> Heat:
    """What `add_heat` added. Raises ConfigError for numbers that make no heat map."""
    from spml_dist.annotations.keypoints import Heat

    return Heat(arguments.keypoint_sigma, arguments.heat_high, arguments.heat_low)


def _radius(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least 0")
    return int(text)
