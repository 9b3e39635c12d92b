"""`spml-dist pack`: images and weak labels -> WebDataset shards and a manifest."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spml_dist import __version__
from spml_dist.cli import folder
from spml_dist.cli import recipes as published
from spml_dist.cli.arguments import add_verb, at_least

if TYPE_CHECKING:
    from spml_dist.data.format.manifest import Manifest
    from spml_dist.data.pack.pack import Described, ReadPart
    from spml_dist.data.pack.region_sources import RegionSource
    from spml_dist.data.recipes.recipe import Recipe

NAME = "pack"

EXAMPLES = """\
examples:
  spml-dist pack sample --out data/sample
  spml-dist pack folder DIR --labels scribble100 --split train --out data/mine/train
  spml-dist pack folder DIR --labels points --point-radius 5 --split train --out data/mine/train
  spml-dist pack folder DIR --labels masks --split val --out data/mine/val
  spml-dist pack folder DIR --labels masks --split train --out s3://bucket/mine/train --workers 16
  spml-dist pack voc2012 --help        # what to download from where, and which labels there are
"""
SAMPLE_EXAMPLES = """\
examples:
  spml-dist pack sample --out data/sample
  spml-dist pack sample --out data/large --images 2000 --val 200 --size 224 --seed 7
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    parser = add_verb(
        subparsers,
        NAME,
        "write images and weak labels as shards",
        "Write images and weak labels as WebDataset shards with a manifest. "
        "The same input gives the same bytes for any number of workers; an earlier pack is replaced when the "
        "new one is complete. After a kill the same command goes on.",
        EXAMPLES,
    )
    recipes = parser.add_subparsers(metavar="RECIPE", required=True, dest="recipe", title="recipes")
    folder.add(recipes, _add_common, run_recipe)
    published.add(recipes, _add_common, run_recipe)
    _add_sample(recipes)


def _regions(arguments: argparse.Namespace) -> RegionSource:
    from spml_dist.data.pack.region_sources import region_source

    return region_source(arguments.regions, arguments.contours, arguments.keep_contours)


def run_recipe(arguments: argparse.Namespace, open: Callable[[argparse.Namespace], Recipe]) -> int:
    recipe = replace(open(arguments), regions=_regions(arguments))
    return _pack_split(arguments, recipe, recipe.name)


def _pack_split(arguments: argparse.Namespace, source: Recipe, data_set: str) -> int:
    from spml_dist.data.pack.pack import Described
    from spml_dist.data.pack.recipe_parts import RecipeParts

    name = arguments.name or re.sub(r"[^\w-]", "_", f"{data_set}-{source.split}")
    if not source.is_annotated():
        kind = f"{source.split}: no image has {source.labels.replace(',', ', ')} annotations"
        print(f"{kind}; packed unlabelled", file=sys.stderr)
    described = Described(
        name,
        source.split,
        source.labels,
        source.classes,
        source.background,
        _said_of(source.regions, arguments),
    )
    read = RecipeParts(source, arguments.shard_size)
    packed = _pack(arguments, read, len(source.ids), arguments.out, described, source.ids)
    return _report(arguments, {source.split: packed})


def run_sample(arguments: argparse.Namespace) -> int:
    from spml_dist.data.generated.sample import LABELS, SPLITS, GeneratedParts
    from spml_dist.data.generated.scenes import BACKGROUND, CLASSES
    from spml_dist.data.pack.pack import Described
    from spml_dist.files.address import join

    manifests = {}
    for split, images in zip(SPLITS, (arguments.images, arguments.val), strict=True):
        read = GeneratedParts(split, images, arguments.shard_size, arguments.size, arguments.seed)
        described = Described(f"sample-{split}", split, LABELS, CLASSES, BACKGROUND, "felzenszwalb")
        manifests[split] = _pack(arguments, read, images, join(arguments.out, split), described)
    return _report(arguments, manifests)


def _pack(
    arguments: argparse.Namespace,
    read: ReadPart,
    images: int,
    out: str,
    described: Described,
    ids: tuple[str, ...] = (),
) -> Manifest:
    from spml_dist.data.pack.pack import pack_parts, part_sizes

    return pack_parts(
        read,
        part_sizes(images, arguments.shard_size),
        out,
        described,
        workers=arguments.workers,
        strict=arguments.strict,
        fingerprint=_fingerprint(arguments, ids),
    )


def _fingerprint(arguments: argparse.Namespace, ids: tuple[str, ...]) -> str:
    """Of all that decides the bytes of a pack, the content of its images and annotations excepted.

    A file among the options counts by its content, wherever it lies.
    """
    free = ("run", "out", "json", "workers", "strict", "debug")
    deciding = {name: str(value) for name, value in vars(arguments).items() if name not in free}
    if "dir" in deciding:
        deciding["dir"] = str(Path(arguments.dir).resolve())
    for name in ("labels_from", "contours"):
        if path := getattr(arguments, name, None):
            deciding[name] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return json.dumps([__version__, deciding, ids], sort_keys=True)


def _said_of(regions: RegionSource, arguments: argparse.Namespace) -> str:
    from spml_dist.data.pack.region_sources import Ready

    if isinstance(regions, Ready):  # where the folder lies says nothing elsewhere, what it is called may
        return f"folder {regions.folder.resolve().name}"
    contours = arguments.contours
    return f"{arguments.regions}, contours by {contours.name}" if contours else arguments.regions


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
        "regions": manifest.regions,
        "rejected": manifest.rejected,
        "classes": list(manifest.classes),
        **asdict(counts),
    }


def _report(arguments: argparse.Namespace, manifests: dict[str, Manifest]) -> int:
    from spml_dist.data.format.diagnose import hints
    from spml_dist.files.write import write_json

    reports = {split: summary(manifest) for split, manifest in manifests.items()}
    print("\n\n".join(_table(report) for report in reports.values()))
    said = [f"{split}: {hint}" for split, manifest in manifests.items() for hint in hints(manifest)]
    if said:
        print("\n" + "\n".join(said))
    print(f"\nwritten to {arguments.out}; check it with: spml-dist verify {arguments.out}")
    if arguments.json:
        write_json(arguments.json, reports)
    return 0


def _table(report: dict[str, Any]) -> str:
    rows = [
        ("split", report["split"]),
        ("labels", report["labels"]),
        ("images", f"{report['images']} ({report['images_unlabelled']} without labelled pixels)"),
        ("shards", f"{report['shards']} ({report['bytes'] / 1e6:.1f} MB)"),
        ("labelled pixels", f"{report['labelled_share']:.2%}"),
        ("regions", report["regions"]),
    ]
    if kinds := _kinds(report):
        rows.append(("kinds", ", ".join(f"{kind} {images}" for kind, images in kinds.items())))
    if contradicted := report["pixels_contradicted"]:
        rows.append(("contradicted", f"{contradicted} pixels"))
    if rejected := report["rejected"]:
        rows.append(("rejected", f"{rejected}, listed in rejected.jsonl"))
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


def _kinds(report: dict[str, Any]) -> dict[str, int]:
    """Images of each kind, and those of none beside them."""
    kinds, none = report["kinds"], report["images_of_no_kind"]
    return kinds | ({"none": none} if kinds and none else {})


def _add_sample(recipes: argparse._SubParsersAction) -> None:
    parser = add_verb(
        recipes,
        "sample",
        "generated scenes with scribbles",
        "Draw scenes of textured shapes that occur together in patterns, with scribbles and whole masks, and "
        "pack them into OUT/train and OUT/val. Nothing is downloaded.",
        SAMPLE_EXAMPLES,
    )
    parser.add_argument(
        "--images", metavar="N", type=at_least(1), default=160, help="for training (default: 160)"
    )
    parser.add_argument("--val", metavar="N", type=at_least(1), default=40, help="held out (default: 40)")
    parser.add_argument(
        "--size", metavar="PIXELS", type=at_least(1), default=160, help="of a side (default: 160)"
    )
    parser.add_argument("--seed", metavar="S", type=at_least(0), default=0, help="of the scenes (default: 0)")
    _add_output(parser, 32)
    parser.set_defaults(run=run_sample, strict=True)


def _add_common(parser: argparse.ArgumentParser) -> None:
    _add_regions(parser)
    _add_output(parser, 256)
    strict = "stop at the first image that cannot be packed instead of listing it in rejected.jsonl"
    parser.add_argument("--strict", action="store_true", help=strict)


def _add_regions(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_argument_group("regions")
    said = "felzenszwalb (default); ucm, ucm:COUNT or ucm@LEVEL, between contours; or a folder of ID.png"
    chosen.add_argument("--regions", metavar="HOW", default="felzenszwalb", help=said)
    network = "with ucm: an ONNX contour network in place of colour and texture gradients"
    chosen.add_argument("--contours", metavar="FILE", type=Path, help=network)
    kept = "with ucm: also write each image's ultrametric contour map, 16-bit PNG"
    chosen.add_argument("--keep-contours", metavar="FOLDER", type=Path, help=kept)


def _add_output(parser: argparse.ArgumentParser, shard_size: int) -> None:
    parser.add_argument("--out", required=True, help="folder to write, or an address: s3://..., gs://...")
    size = f"samples of a tar (default: {shard_size})"
    parser.add_argument("--shard-size", metavar="N", type=at_least(1), default=shard_size, help=size)
    workers = "processes that pack side by side, on the Ray cluster of RAY_ADDRESS if it is set (default: 1)"
    parser.add_argument("--workers", metavar="N", type=at_least(1), default=1, help=workers)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table as JSON")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
