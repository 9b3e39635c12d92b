"""`spml-dist preview`: images of a pack with their labels, regions and tags, on one sheet."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from spml_dist.cli.arguments import add_verb
from spml_dist.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from spml_dist.data.format.manifest import Manifest
    from spml_dist.data.stream.reader import Reader
    from spml_dist.drawing.contact_sheet import Chip

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
LOOKED_AT = 500
"""images looked at, at most, for one of each kind of annotation"""
TARS = 4

Place = tuple[int, int]
"""number of the tar, and of the sample in it"""


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
    chosen.add_argument("--from", metavar="KEY,KEY", dest="keys", help="these image ids")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="of the choice (default: 0)")
    parser.add_argument("--masks", action="store_true", help="show whole masks too, where there are any")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    from spml_dist.data.format import sample_card
    from spml_dist.data.format.manifest import read_manifest
    from spml_dist.data.stream.reader import Reader
    from spml_dist.drawing.contact_sheet import sheet
    from spml_dist.drawing.overlay import palette, write_picture

    manifest = read_manifest(arguments.shards)
    reader = Reader(arguments.shards, manifest, masks=arguments.masks)
    if arguments.keys is None:
        places = chosen(reader, arguments.images, arguments.seed)
    else:
        places = named(reader, _ids(arguments.keys))
    colours = palette(len(manifest.classes), manifest.background)
    entries, labels = [], set()
    for sample in (reader.read(*place) for place in places):
        entries.append(sample_card.entry(sample, manifest, colours, arguments.masks))
        labels |= sample_card.shown(sample, arguments.masks)
    drawn = sheet(_heading(manifest, len(entries)), entries, _legend(manifest, labels, colours))
    try:
        write_picture(arguments.out, drawn)
    except DataError as error:
        flag = "--images" if arguments.keys is None else "--from"
        height, width = drawn.shape[:2]
        what = f"{flag}: {len(entries)} images are too many for {arguments.out}"
        raise ConfigError(what, f"{height} x {width} pixels", "show fewer, or write a .png") from error
    except OSError as error:
        raise DataError(
            f"{arguments.out}: cannot be written", error.strerror, "give another --out"
        ) from error
    print(f"wrote {len(entries)} of {manifest.samples:,} images to {arguments.out}")
    return 0


def chosen(reader: Reader, images: int, seed: int) -> list[Place]:
    """So many samples, drawn by the seed, among them one of every kind of annotation that is met.

    A kind that none of LOOKED_AT samples has is given up, and stderr says so; "not annotated" counts as one.
    """
    manifest = reader.manifest
    wanted = set(manifest.counts.kinds)
    if manifest.counts.images_of_no_kind:
        wanted.add("")
    drawn, first = [], []
    for place in islice(_drawn(manifest, seed), max(images, LOOKED_AT)):
        if not wanted and len(drawn) >= images:
            break
        drawn.append(place)
        brought = wanted and wanted.intersection(reader.read(*place).kinds or ("",))
        if brought:
            wanted -= brought
            first.append(place)
    if kinds := [kind or "no annotation" for kind in sorted(wanted)]:
        print(f"of {len(drawn)} images looked at none has: {', '.join(kinds)}", file=sys.stderr)
    return list(dict.fromkeys([*first, *drawn]))[:images]


def _drawn(manifest: Manifest, seed: int) -> Iterator[Place]:
    """All samples in an order drawn by the seed, from a few tars at a time: remote ones are fetched whole."""
    draw = random.Random(seed)
    shards = list(range(len(manifest.shards)))
    draw.shuffle(shards)
    for opened in (shards[i : i + TARS] for i in range(0, len(shards), TARS)):
        places = [(shard, index) for shard in opened for index in range(manifest.shards[shard].samples)]
        draw.shuffle(places)
        yield from places


def named(reader: Reader, ids: Sequence[str]) -> list[Place]:
    """The samples of these image ids, in their order. Raises DataError for those that the pack has not."""
    from spml_dist.data.format.keys import key_of

    wanted = [key_of(image_id) for image_id in ids]
    found: dict[str, Place] = {}
    for shard in range(len(reader.manifest.shards)):
        found |= {key: (shard, i) for i, key in enumerate(reader.keys(shard)) if key in wanted}
        if len(found) == len(set(wanted)):
            return [found[key] for key in dict.fromkeys(wanted)]
    missing = [image_id for image_id in ids if key_of(image_id) not in found]
    reasons = _rejected(reader)
    rejected = [f"{name} was rejected: {reasons[name]}" for name in missing if name in reasons]
    remedy = "; ".join([*rejected, "give image ids that were packed"])
    raise DataError(f"{reader.folder}: no such images", ", ".join(missing), remedy)


def _rejected(reader: Reader) -> dict[str, str]:
    """Image ids that the pack has rejected, with the reasons; none where the list is out of reach."""
    from spml_dist.data.pack.output_store import REJECTED
    from spml_dist.files import address

    lines, place = b"", address.join(reader.folder, REJECTED)
    if reader.manifest.rejected:
        with suppress(OSError, DataError):
            remote = address.is_remote(place)
            lines = address.read(place, address.RETRY_SECONDS) if remote else Path(place).read_bytes()
    return {said["image"]: said["reason"] for said in map(json.loads, lines.splitlines())}


def _ids(words: str) -> list[str]:
    """Image ids as --from gives them."""
    return [image_id for word in words.split(",") if (image_id := word.strip())]


def _heading(manifest: Manifest, count: int) -> str:
    labels, shown = manifest.labels.replace(",", ", "), f"{count} of {manifest.samples:,} images"
    return f"{manifest.name} · {manifest.split} · {labels} · {shown}"


def _legend(manifest: Manifest, labels: set[int], colours: np.ndarray) -> list[Chip]:
    from spml_dist.records import IGNORED, UNLABELLED

    names = dict(enumerate(manifest.classes)) | {UNLABELLED: "unlabelled", IGNORED: "ignored (hatched)"}
    return [(names[label], tuple(map(int, colours[label]))) for label in sorted(labels)]


def _check(arguments: argparse.Namespace) -> None:
    if arguments.out.suffix.lower() not in SUFFIXES:
        raise ConfigError("--out", arguments.out, f"end its name in {', '.join(SUFFIXES)}")
    if arguments.images < 1:
        raise ConfigError("--images", arguments.images, "show at least 1")
    if arguments.keys is not None and not _ids(arguments.keys):
        raise ConfigError("--from", repr(arguments.keys), "give image ids")
