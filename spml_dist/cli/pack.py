"""`spml-dist pack`: images and weak labels -> WebDataset shards and a manifest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from spml_dist.cli.arguments import add_verb
from spml_dist.cli.recipes import coco, densepose, folder, images, sample, voc2012

if TYPE_CHECKING:
    from spml_dist.data.format.manifest import Manifest

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


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
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
    for recipe in (folder, voc2012, coco, densepose, images):
        recipe.add(recipes)
    parser.set_defaults(run=run_recipe)
    sample.add(recipes).set_defaults(run=run_sample)


def run_recipe(arguments: argparse.Namespace) -> int:
    """Pack the split that `open_recipe`, the function of the chosen subcommand, opens."""
    from spml_dist.data.pack.fingerprint import fingerprint
    from spml_dist.data.pack.pack_recipe import pack_recipe
    from spml_dist.data.pack.region_sources import describe, region_source

    regions = region_source(arguments.regions, arguments.contours, arguments.keep_contours)
    recipe = replace(arguments.open_recipe(arguments), regions=regions)
    for note in recipe.notes:
        print(*note.splitlines(), file=sys.stderr)  # it may name files, and files may have odd names
    if not recipe.is_annotated():
        kinds = recipe.labels.replace(",", ", ")
        print(f"{recipe.split}: no image has {kinds} annotations; packed unlabelled", file=sys.stderr)
    manifest = pack_recipe(
        recipe,
        arguments.out,
        name=arguments.name,
        regions=describe(regions, arguments.regions, arguments.contours),
        shard_size=arguments.shard_size,
        workers=arguments.workers,
        strict=arguments.strict,
        fingerprint=fingerprint(vars(arguments), recipe.ids),
    )
    return _report(arguments, {recipe.split: manifest})


def run_sample(arguments: argparse.Namespace) -> int:
    """Pack generated scenes."""
    from spml_dist.data.pack.fingerprint import fingerprint
    from spml_dist.data.pack.pack_recipe import pack_sample

    names = ("images", "val", "size", "seed", "shard_size", "workers")
    options = {name: getattr(arguments, name) for name in names}
    return _report(arguments, pack_sample(arguments.out, **options, fingerprint=fingerprint(vars(arguments))))


def _report(arguments: argparse.Namespace, manifests: Mapping[str, Manifest]) -> int:
    from spml_dist.data.format.diagnose import hints
    from spml_dist.data.format.summary import summary, summary_table
    from spml_dist.files.write import write_json

    numbers = {split: summary(manifest) for split, manifest in manifests.items()}
    print("\n\n".join(map(summary_table, numbers.values())))
    if sentences := [f"{split}: {hint}" for split, each in manifests.items() for hint in hints(each)]:
        print("\n" + "\n".join(sentences))
    print(f"\nwritten to {arguments.out}; check it with: spml-dist verify {arguments.out}")
    if arguments.json:
        write_json(arguments.json, numbers)
    return 0
