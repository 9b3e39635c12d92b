"""`spml-dist preview`: images of a pack with their labels, regions and tags, on one sheet."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spml_dist.cli.arguments import add_verb
from spml_dist.errors import ConfigError, DataError

NAME = "preview"

EXAMPLES = """\
each image is shown as it is, with its labels and boxes on it, and with its regions; above it stand its
image id, its kinds of annotation and its tags. Pale grey is unlabelled, hatched is ignored.

examples:
  spml-dist preview data/sample/train --out sample.png
  spml-dist preview data/mine/train --out mine.jpg --images 30 --seed 1
  spml-dist preview data/mine/val --out val.png --masks
  spml-dist preview s3://bucket/mine/train --out two.png --from IMG_0001,IMG_0002
"""
SUFFIXES = (".png", ".jpg", ".jpeg")


def add(subparsers: argparse._SubParsersAction) -> None:
    parser = add_verb(
        subparsers,
        NAME,
        "draw images of a pack with their labels, regions and tags",
        "Draw some images of a pack, each kind of annotation among them, on one sheet.",
        EXAMPLES,
    )
    parser.add_argument("shards", metavar="SHARDS", help="a packed folder or its address")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="image to write, PNG or JPEG")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--images", metavar="N", type=int, default=12, help="how many (default: 12)")
    chosen.add_argument(
        "--from", metavar="KEY,KEY", dest="keys", help="these image ids; one may hold commas itself"
    )
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of the choice (default: 0)")
    parser.add_argument("--masks", action="store_true", help="show whole masks too, where there are any")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    from spml_dist.data.format.manifest import read_manifest
    from spml_dist.data.format.sample_card import sheet_of
    from spml_dist.data.stream import selection
    from spml_dist.data.stream.reader import Reader
    from spml_dist.drawing.overlay import write_picture

    manifest = read_manifest(arguments.shards)
    reader = Reader(arguments.shards, manifest, masks=arguments.masks)
    if arguments.keys is None:
        chosen = selection.choose(reader, arguments.images, arguments.seed)
        places = chosen.places
        if kinds := [kind or "no annotation" for kind in chosen.kinds_not_met]:
            print(f"of {chosen.searched} images looked at none has: {', '.join(kinds)}", file=sys.stderr)
    else:
        places = selection.find(reader, arguments.keys.split(","))
    sheet = sheet_of((reader.read(*place) for place in places), manifest, arguments.masks)
    try:
        write_picture(arguments.out, sheet.picture)
    except DataError as error:
        flag = "--images" if arguments.keys is None else "--from"
        height, width = sheet.picture.shape[:2]
        what = f"{flag}: {sheet.images} images are too many for {arguments.out}"
        raise ConfigError(what, f"{height} x {width} pixels", "show fewer, or write a .png") from error
    if letters := sheet.without_font:
        some = f"{' '.join(letters[:10])}{' ...' * (len(letters) > 10)}"
        print(f"no font here has {some}: drawn as codes; install one, such as Noto Sans CJK", file=sys.stderr)
    print(f"wrote {sheet.images} of {manifest.samples:,} images to {arguments.out}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.out.suffix.lower() not in SUFFIXES:
        raise ConfigError("--out", arguments.out, f"end its name in {', '.join(SUFFIXES)}")
    if arguments.images < 1:
        raise ConfigError("--images", arguments.images, "show at least 1")
    if arguments.keys is not None and not arguments.keys.strip(", "):
        raise ConfigError("--from", repr(arguments.keys), "give image ids")
