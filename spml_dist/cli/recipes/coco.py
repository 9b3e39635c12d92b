"""COCO 2017: the options and the help of its recipe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from spml_dist.cli.arguments import add_verb
from spml_dist.cli.recipes.labels import OPTIONS, add_boxes, given, say_idle
from spml_dist.cli.recipes.options import add_common, add_split, say_reading

if TYPE_CHECKING:
    from spml_dist.data.recipes.recipe import Recipe

EXAMPLES = """\
download and unpack in DIR:
  train2017/  val2017/
    http://images.cocodataset.org/zips/train2017.zip, http://images.cocodataset.org/zips/val2017.zip
  annotations/instances_SPLIT.json
    http://images.cocodataset.org/annotations/annotations_trainval2017.zip
  annotations/panoptic_SPLIT.json  annotations/panoptic_SPLIT/*.png
    http://images.cocodataset.org/annotations/panoptic_annotations_trainval2017.zip, and the zips in it

annotations:
  instances    80 classes and background; where instances overlap the smaller one is in front, crowds are last
  panoptic     133 classes of things and stuff, no background; what is in no segment is ignored
labels:
  masks        every pixel
  boxes        (instances) what lies outside all boxes is background, their inside is for `spml-dist cam
               infer`; with --boxes geometry the middle fifth of each is its class
  tags         no labelled pixels; the classes of the image
An image without instances is known to show none. Masks go along for evaluation, except of images with an
instance that has no outline, which boxes and tags do not need.

One's own images and COCO files, with classes of one's own, are read alike: DIR/SPLIT/ and
DIR/annotations/instances_SPLIT.json. docs/recipes.md has the exports of label tools.

examples:
  spml-dist pack coco DIR --labels boxes --split train2017 --out data/coco_box/train
  spml-dist pack coco DIR --labels tags --annotations panoptic --split train2017 --out data/stuff_tag/train
  spml-dist pack coco DIR --labels masks --split val2017 --out data/coco/val
"""


def add(recipes: argparse._SubParsersAction) -> None:
    """Add the recipe."""
    parser = add_verb(recipes, "coco", "COCO's instances or panoptic segments", "Pack COCO 2017.", EXAMPLES)
    add_split(parser, "masks, boxes or tags")
    parser.add_argument(
        "--annotations", choices=("instances", "panoptic"), default="instances", help="(default: %(default)s)"
    )
    add_boxes(parser)
    add_common(parser)
    parser.set_defaults(open_recipe=_open)


def _open(arguments: argparse.Namespace) -> Recipe:
    from spml_dist.data.recipes.coco import open_coco

    say_reading(arguments.split)
    source = (arguments.dir, arguments.split, arguments.labels)
    recipe = open_coco(*source, arguments.annotations, **given(arguments, OPTIONS["boxes"]))
    say_idle(arguments, {arguments.labels})
    return recipe
