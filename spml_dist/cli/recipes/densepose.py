"""DensePose-COCO: the options and the help of its recipe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from spml_dist.cli.arguments import add_verb
from spml_dist.cli.recipes.labels import OPTIONS, add_heat, add_radius, given, heat, say_idle
from spml_dist.cli.recipes.options import add_common, add_split, say_reading

if TYPE_CHECKING:
    from spml_dist.data.recipes.recipe import Recipe

EXAMPLES = """\
download and unpack in DIR:
  train2014/  val2014/
    http://images.cocodataset.org/zips/train2014.zip, http://images.cocodataset.org/zips/val2014.zip
  annotations/densepose_coco_2014_train.json, ..._minival.json, ..._valminusminival.json
    https://dl.fbaipublicfiles.com/densepose/densepose_coco_2014_train.json and so on

splits: train2014, minival2014 (1,508 images, for evaluation), valminusminival2014.

labels (14 parts of the body and background):
  masks        the parts as they were drawn; people whose parts nobody drew are ignored
  points       a disc at the centre of each part that a person shows; background where every point is farther
               than a quarter of the image's diagonal; the rest is unlabelled
  keypoints    a Gaussian heat map around the same centres: hot pixels are their part, cold ones background,
               the rest is unlabelled
Tags are the parts in the image, unknown where it shows people whose parts nobody drew.

examples:
  spml-dist pack densepose DIR --labels points --split train2014 --out data/densepose_point/train
  spml-dist pack densepose DIR --labels keypoints --split train2014 --out data/densepose_keypoint/train
  spml-dist pack densepose DIR --labels masks --split minival2014 --out data/densepose_point/val
"""


def add(recipes: argparse._SubParsersAction) -> None:
    """Add the recipe."""
    parser = add_verb(recipes, "densepose", "DensePose-COCO's body parts", "Pack DensePose-COCO.", EXAMPLES)
    add_split(parser, "masks, points or keypoints")
    add_radius(parser, 6)
    add_heat(parser)
    add_common(parser)
    parser.set_defaults(open_recipe=_open)


def _open(arguments: argparse.Namespace) -> Recipe:
    from spml_dist.data.recipes.densepose import open_densepose

    say_reading(arguments.split)
    source = (arguments.dir, arguments.split, arguments.labels)
    recipe = open_densepose(*source, heat=heat(arguments), **given(arguments, OPTIONS["points"]))
    say_idle(arguments, {arguments.labels})
    return recipe
