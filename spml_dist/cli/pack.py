"""`spml-dist pack`: pictures and weak labels -> WebDataset shards and a manifest."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spml_dist.cli import recipes as published

if TYPE_CHECKING:
    from spml_dist.schema import Sample
    from spml_dist.shards.folder import Folder
    from spml_dist.shards.manifest import Manifest
    from spml_dist.shards.recipe import Recipe
    from spml_dist.shards.regions import RegionSource

NAME = "pack"

EXAMPLES = """\
examples:
  spml-dist pack sample --out data/sample
  spml-dist pack folder DIR --labels scribble100 --split train --out data/mine/train
  spml-dist pack folder DIR --labels points --point-radius 5 --split train --out data/mine/train
  spml-dist pack folder DIR --labels masks --split val --out data/mine/val
  spml-dist pack voc2012 --help        # what to download from where, and which labels there are
"""
FOLDER_EXAMPLES = """\
DIR holds classes.txt ("ID name" a line), meta.json ({"background": ID or null}), SPLIT.txt (image ids),
images/ID.jpg, and masks/ID.png, weak/KIND/ID.png or weak/KIND.json ({ID: [[class, x, y], ...]}).
A split without annotations of KIND is packed unlabelled, with its masks for evaluation.

examples:
  spml-dist pack folder DIR --labels scribble100 --split train --out data/mine/train
  spml-dist pack folder DIR --labels points --point-radius 5 --split train --out data/mine/train
  spml-dist pack folder DIR --labels masks --split val --out data/mine/val --json val.json
  spml-dist pack folder DIR --labels points --split train --regions ucm:120 --out data/mine/train
"""
SAMPLE_EXAMPLES = """\
examples:
  spml-dist pack sample --out data/sample
  spml-dist pack sample --out data/large --images 2000 --val 200 --size 224 --seed 7
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    parser = _parser(
        subparsers,
        NAME,
        "write pictures and weak labels as shards",
        "Write pictures and weak labels as WebDataset shards with a manifest. "
        "The same input gives the same bytes; an earlier pack is replaced when the new one is complete.",
        EXAMPLES,
    )
    recipes = parser.add_subparsers(metavar="RECIPE", required=True, dest="recipe", title="recipes")
    _add_folder(recipes)
    published.add(recipes, _parser, _add_common, run_recipe)
    _add_sample(recipes)


def run_folder(arguments: argparse.Namespace) -> int:
    from spml_dist.shards.folder import open_folder

    folder = open_folder(arguments.dir, arguments.split, arguments.labels, arguments.point_radius)
    folder = replace(folder, regions=_regions(arguments))
    return _pack_split(arguments, folder, folder.root.resolve().name)


def _regions(arguments: argparse.Namespace) -> RegionSource:
    from spml_dist.shards.regions import region_source

    return region_source(arguments.regions, arguments.contours, arguments.keep_contours)


def run_recipe(arguments: argparse.Namespace, open: Callable[[argparse.Namespace], Recipe]) -> int:
    recipe = replace(open(arguments), regions=_regions(arguments))
    return _pack_split(arguments, recipe, recipe.name)


def _pack_split(arguments: argparse.Namespace, source: Folder | Recipe, data_set: str) -> int:
    name = arguments.name or re.sub(r"[^\w-]", "_", f"{data_set}-{source.split}")
    if not source.is_annotated():
        kind = f"{source.split}: no image has {source.labels} annotations"
        print(f"{kind}; packed unlabelled, for evaluation and prediction", file=sys.stderr)
    manifest = _pack(
        arguments,
        source.samples(),
        len(source.ids),
        Path(arguments.out),
        name,
        split=source.split,
        labels=source.labels,
        classes=source.classes,
        background=source.background,
        jpeg=source.jpeg,
    )
    return _report(arguments, {source.split: manifest})


def run_sample(arguments: argparse.Namespace) -> int:
    from spml_dist.shards.generated import LABELS, SPLITS, generated
    from spml_dist.shards.scenes import BACKGROUND, CLASSES

    manifests = {}
    for split, images in zip(SPLITS, (arguments.images, arguments.val), strict=True):
        manifests[split] = _pack(
            arguments,
            generated(split, images, size=arguments.size, seed=arguments.seed),
            images,
            Path(arguments.out) / split,
            f"sample-{split}",
            split=split,
            labels=LABELS,
            classes=CLASSES,
            background=BACKGROUND,
        )
    return _report(arguments, manifests)


def summary(manifest: Manifest) -> dict[str, Any]:
    """Numbers of a packed split, for the table and for --json."""
    counts = manifest.counts
    return {
        "name": manifest.name,
        "split": manifest.split,
        "labels": manifest.labels,
        "images": manifest.samples,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "labelled_share": sum(counts.pixels_labelled) / counts.pixels,
        "classes": list(manifest.classes),
        **asdict(counts),
    }


def _pack(
    arguments: argparse.Namespace,
    samples: Iterable[Sample],
    total: int,
    out: Path,
    name: str,
    **described: Any,
) -> Manifest:
    from tqdm import tqdm

    from spml_dist.shards.pack import pack

    pause = 0.2 if sys.stderr.isatty() else 10  # seconds; a log file gets few lines
    with tqdm(samples, total=total, desc=name, unit=" images", mininterval=pause) as shown:
        return pack(shown, out, name, shard_size=arguments.shard_size, **described)


def _report(arguments: argparse.Namespace, manifests: dict[str, Manifest]) -> int:
    from spml_dist.shards.manifest import write_json

    reports = {split: summary(manifest) for split, manifest in manifests.items()}
    print("\n\n".join(_table(report) for report in reports.values()))
    print(f"\nwritten to {arguments.out}; check it with: spml-dist verify {arguments.out}")
    if arguments.json:
        write_json(arguments.json, reports)
    return 0


def _table(report: dict[str, Any]) -> str:
    rows = [
        ("split", report["split"]),
        ("labels", report["labels"]),
        ("images", f"{report['images']} ({report['images_unlabelled']} without labels)"),
        ("shards", f"{report['shards']} ({report['bytes'] / 1e6:.1f} MB)"),
        ("labelled pixels", f"{report['labelled_share']:.2%}"),
    ]
    lines = [f"{key:<17}{value}" for key, value in rows]
    if not any(report["images_tagged"] + report["pixels_labelled"]):
        return "\n".join(lines)
    width = max(len(name) for name in report["classes"])
    lines.append(f"{'class':<{width}}  {'images tagged':>13}  {'labelled pixels':>15}")
    for name, images, pixels in zip(
        report["classes"], report["images_tagged"], report["pixels_labelled"], strict=True
    ):
        lines.append(f"{name:<{width}}  {images:>13}  {pixels:>15}")
    return "\n".join(lines)


def _add_folder(recipes: argparse._SubParsersAction) -> None:
    parser = _parser(
        recipes,
        "folder",
        "one split of a folder of pictures",
        "Pack one split of a folder of pictures with one kind of annotation.",
        FOLDER_EXAMPLES,
    )
    parser.add_argument(
        "dir", metavar="DIR", help="folder with images/, classes.txt, meta.json and SPLIT.txt"
    )
    parser.add_argument("--labels", metavar="KIND", required=True, help="masks, or a name under weak/")
    parser.add_argument("--split", required=True, help="train, val, ...: the name of a list of image ids")
    parser.add_argument("--name", help="the tars are called NAME-000000.tar, ... (default: DIR-SPLIT)")
    radius = "of the disc that a point becomes, in pixels (default: 3)"
    parser.add_argument("--point-radius", metavar="R", type=_at_least(0), default=3, help=radius)
    _add_regions(parser)
    _add_output(parser, 256)
    parser.set_defaults(run=run_folder)


def _add_sample(recipes: argparse._SubParsersAction) -> None:
    parser = _parser(
        recipes,
        "sample",
        "generated scenes with scribbles",
        "Draw scenes of textured shapes that occur together in patterns, with scribbles and whole masks, and "
        "pack them into OUT/train and OUT/val. Nothing is downloaded.",
        SAMPLE_EXAMPLES,
    )
    parser.add_argument(
        "--images", metavar="N", type=_at_least(1), default=160, help="for training (default: 160)"
    )
    parser.add_argument("--val", metavar="N", type=_at_least(1), default=40, help="held out (default: 40)")
    parser.add_argument(
        "--size", metavar="PIXELS", type=_at_least(1), default=160, help="of a side (default: 160)"
    )
    parser.add_argument(
        "--seed", metavar="S", type=_at_least(0), default=0, help="of the scenes (default: 0)"
    )
    _add_output(parser, 32)
    parser.set_defaults(run=run_sample)


def _add_common(parser: argparse.ArgumentParser) -> None:
    _add_regions(parser)
    _add_output(parser, 256)


def _add_regions(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_argument_group("regions")
    said = "felzenszwalb (default); ucm, ucm:COUNT or ucm@LEVEL, between contours; or a folder of ID.png"
    chosen.add_argument("--regions", metavar="HOW", default="felzenszwalb", help=said)
    network = "with ucm: an ONNX contour network in place of colour and texture gradients"
    chosen.add_argument("--contours", metavar="FILE", type=Path, help=network)
    kept = "with ucm: also write each picture's ultrametric contour map, 16-bit PNG"
    chosen.add_argument("--keep-contours", metavar="FOLDER", type=Path, help=kept)


def _add_output(parser: argparse.ArgumentParser, shard_size: int) -> None:
    parser.add_argument("--out", required=True, help="folder to write")
    size = f"samples of a tar (default: {shard_size})"
    parser.add_argument("--shard-size", metavar="N", type=_at_least(1), default=shard_size, help=size)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _parser(
    subparsers: argparse._SubParsersAction, name: str, help: str, description: str, epilog: str
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name,
        help=help,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least {least}")
        return int(text)

    return number
