"""Options of `spml-dist pack` that its recipes share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spml_dist.cli.arguments import at_least


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options of every recipe that reads images: how regions are made, where the pack goes."""
    _add_regions(parser)
    add_output(parser, 256)
    strict = "stop at the first image that cannot be packed instead of listing it in rejected.jsonl"
    parser.add_argument("--strict", action="store_true", help=strict)


def add_split(parser: argparse.ArgumentParser, labels: str) -> None:
    """Where a published data set is and what of it to pack. labels: the kinds there are, for the help."""
    parser.add_argument("dir", metavar="DIR", help="folder that the archives were unpacked in")
    parser.add_argument("--labels", metavar="KIND", required=True, help=labels)
    parser.add_argument("--split", required=True, help="one of the published splits below")
    add_name(parser)


def add_name(parser: argparse.ArgumentParser) -> None:
    """What the tars are called."""
    parser.add_argument(
        "--name", help="the tars are called NAME-000000.tar, ... (default: data set and split)"
    )


def say_reading(split: str) -> None:
    """Before files are read whose size takes a while."""
    print(f"reading the annotations of {split}", file=sys.stderr)


def add_output(parser: argparse.ArgumentParser, shard_size: int) -> None:
    """Where a pack goes and how it is cut. shard_size: the default number of samples of a tar."""
    parser.add_argument("--out", required=True, help="folder to write, or an address: s3://..., gs://...")
    size = f"samples of a tar (default: {shard_size})"
    parser.add_argument("--shard-size", metavar="N", type=at_least(1), default=shard_size, help=size)
    workers = "processes that pack side by side, on the Ray cluster of RAY_ADDRESS if it is set (default: 1)"
    parser.add_argument("--workers", metavar="N", type=at_least(1), default=1, help=workers)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _add_regions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("regions")
    how = "felzenszwalb (default); ucm, ucm:COUNT or ucm@LEVEL, between contours; or a folder of ID.png"
    group.add_argument("--regions", metavar="HOW", default="felzenszwalb", help=how)
    network = "with ucm: an ONNX contour network in place of colour and texture gradients"
    group.add_argument("--contours", metavar="FILE", type=Path, help=network)
    maps = "with ucm: also write each image's ultrametric contour map, 16-bit PNG"
    group.add_argument("--keep-contours", metavar="FOLDER", type=Path, help=maps)
