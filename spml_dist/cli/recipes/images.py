"""A bare folder of images: the options and the help of its recipe."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from spml_dist.cli.arguments import add_verb
from spml_dist.cli.recipes.options import add_common, add_name

if TYPE_CHECKING:
    from spml_dist.data.recipes.recipe import Recipe

EXAMPLES = """\
Takes every JPEG, PNG, WebP, TIFF, BMP and GIF file below DIR, whatever the folders (links are followed once);
nothing else has to be there. Of an animation or several pages the first is taken. What is left out is counted
and named. The image id is the path without its suffix. --classes gives the pack the classes that a training
and a network have.

FOLDER holds classes.txt and meta.json, as for `spml-dist pack folder`.

The pack serves `spml-dist preview` and, with --classes, a training by image similarity alone. It cannot be
evaluated, for it has no ground truth, and `spml-dist cam infer` finds no tags or boxes in it. To train on
images without labels beside labelled ones, put all of them into one folder: `spml-dist pack folder` packs
the images of SPLIT.txt that have no annotation unlabelled, and they are trained on all the same.

examples:
  spml-dist pack images DIR --out data/photos    # then: spml-dist preview data/photos --out photos.png
  spml-dist pack images DIR --classes FOLDER --split unlabelled --out data/unlabelled
"""


def add(recipes: argparse._SubParsersAction) -> None:
    """Add the recipe."""
    about = "Pack all images of a folder, without labels."
    parser = add_verb(recipes, "images", "a bare folder of images", about, EXAMPLES)
    parser.add_argument("dir", metavar="DIR", help="folder of images, at any depth")
    parser.add_argument("--split", default="all", help="what to call it (default: all)")
    parser.add_argument(
        "--classes", metavar="FOLDER", help="folder with classes.txt and meta.json (default: no classes)"
    )
    add_name(parser)
    add_common(parser)
    parser.set_defaults(open_recipe=_open)


def _open(arguments: argparse.Namespace) -> Recipe:
    from spml_dist.data.recipes.images import open_images

    recipe = open_images(arguments.dir, arguments.split, arguments.classes)
    for note in recipe.notes:
        print(f"{recipe.split}: {note}", file=sys.stderr)
    return recipe
