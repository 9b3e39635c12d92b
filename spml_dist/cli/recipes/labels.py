"""Options of `spml-dist pack` that say how marks become labelled pixels."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spml_dist.data.annotations.keypoints import HeatMap


OPTIONS = {
    "points": ("point_radius",),
    "boxes": ("boxes",),
    "keypoints": ("keypoint_sigma", "heat_high", "heat_low"),
}
"""options by the form of marks that they concern; None where they are not given"""
_NEEDED = {"points": "becomes discs", "boxes": "has boxes", "keypoints": "becomes heat maps"}


def add_radius(parser: argparse._ActionsContainer, default: int) -> None:
    """--point-radius; default: what its absence stands for."""
    radius = f"of the disc that a point becomes, in pixels (default: {default})"
    parser.add_argument("--point-radius", metavar="R", type=_radius, help=radius)


def add_boxes(parser: argparse._ActionsContainer) -> None:
    """--boxes."""
    inside = (
        "what labels the inside of boxes: cam leaves it unlabelled, for `spml-dist cam infer` (default); "
        "geometry labels the middle fifth of each"
    )
    parser.add_argument("--boxes", choices=("cam", "geometry"), help=inside)


def add_heat(parser: argparse._ActionsContainer) -> None:
    """--keypoint-sigma, --heat-high and --heat-low; `heat` reads them."""
    sigma = "width of a keypoint's heat map, in pixels (default: 3 %% of the image's diagonal)"
    parser.add_argument("--keypoint-sigma", metavar="S", type=float, help=sigma)
    high = "a pixel this hot takes its keypoint's class (default: 0.5, within 1.18 S)"
    parser.add_argument("--heat-high", metavar="H", type=float, help=high)
    low = "a pixel less hot than this is background (default: 0.02, beyond 2.80 S)"
    parser.add_argument("--heat-low", metavar="H", type=float, help=low)


def heat(arguments: argparse.Namespace) -> HeatMap:
    """What `add_heat` added. Raises ConfigError for numbers that make no heat map."""
    from spml_dist.data.annotations.keypoints import HeatMap

    options = given(arguments, OPTIONS["keypoints"])
    return HeatMap(**{name.rpartition("_")[2]: value for name, value in options.items()})


def given(arguments: argparse.Namespace, options: Iterable[str]) -> dict[str, Any]:
    """Those of the options that were given, with their values; what is absent is up to the recipe."""
    values = {name: getattr(arguments, name, None) for name in options}
    return {name: value for name, value in values.items() if value is not None}


def say_idle(arguments: argparse.Namespace, forms: Collection[str]) -> None:
    """Print a line about options that were given and concern none of the forms of marks that are packed."""
    for form, options in OPTIONS.items():
        idle = [f"--{name.replace('_', '-')}" for name in given(arguments, options)]
        if idle and form not in forms:
            do = "does" if len(idle) == 1 else "do"
            print(f"{', '.join(idle)} {do} nothing: no kind among --labels {_NEEDED[form]}", file=sys.stderr)


def _radius(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least 0")
    return int(text)
