"""PASCAL VOC 2012: the options and the help of its recipe."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from spml_dist.cli.arguments import add_verb
from spml_dist.cli.recipes.labels import add_boxes, add_radius, given, say_idle
from spml_dist.cli.recipes.options import add_common, add_split

if TYPE_CHECKING:
    from spml_dist.data.recipes.recipe import Recipe

EXAMPLES = """\
download and unpack in DIR, each where it unpacks by itself:
  VOCdevkit/VOC2012/
    http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar
  benchmark_RELEASE/dataset/   (SBD; for train_aug)
    https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz
  scribble_annotation/pascal_2012/*.xml   (ScribbleSup; for scribbles and points)
    scribble_annotation.zip of https://jifengdai.org/downloads/scribble_sup/
  whats_the_point/data/pascal2012_trainval_main.json   (What's the Point; for clicks)
    the data of http://vision.stanford.edu/whats_the_point/
Only what the split and the labels need has to be there.

splits: train, val, trainval as in ImageSets/Segmentation (test too, where its archive is unpacked), and
train_aug, 10,582 images: the train and val of SBD without VOC's val, and VOC's train.

labels:
  masks        VOC's SegmentationClass, or else SBD's cls/*.mat
  scribbles    ScribbleSup's scribbles, 3 pixels wide; scribbles80, scribbles50, scribbles30: the middle
               80, 50, 30 % of each
  points       the middle of each ScribbleSup scribble, background included, as a disc
  clicks       What's the Point's clicks on objects as discs; the background has none
  boxes        the boxes of Annotations/*.xml: what lies outside all of them is background, their inside is
               for `spml-dist cam infer`; with --boxes geometry the middle fifth of each is its class
  tags         no labelled pixels; the classes of Annotations/*.xml
Tags come from the labels; with boxes and tags from Annotations/*.xml. Masks go along for evaluation.

examples:
  spml-dist pack voc2012 DIR --labels scribbles --split train_aug --out data/voc12/train
  spml-dist pack voc2012 DIR --labels points --split train_aug --out data/voc12_point/train
  spml-dist pack voc2012 DIR --labels boxes --split train_aug --out data/voc12_box/train
  spml-dist pack voc2012 DIR --labels masks --split val --out data/voc12/val
"""


def add(recipes: argparse._SubParsersAction) -> None:
    """Add the recipe."""
    parser = add_verb(
        recipes, "voc2012", "PASCAL VOC 2012 with SBD and its weak labels", "Pack VOC 2012.", EXAMPLES
    )
    add_split(
        parser, "masks, scribbles, scribbles80, scribbles50, scribbles30, points, clicks, boxes or tags"
    )
    add_radius(parser, 6)
    add_boxes(parser)
    add_common(parser)
    parser.set_defaults(open_recipe=_open)


def _open(arguments: argparse.Namespace) -> Recipe:
    from spml_dist.data.recipes.voc2012 import AUGMENTED, open_voc2012

    source = (arguments.dir, arguments.split, arguments.labels)
    recipe = open_voc2012(*source, **given(arguments, ("point_radius", "boxes")))
    say_idle(arguments, {"points" if arguments.labels == "clicks" else arguments.labels})
    if recipe.split == "train_aug" and len(recipe.ids) != AUGMENTED:
        counts = f"train_aug: {len(recipe.ids)} images here, {AUGMENTED} in the published set"
        print(f"{counts}; compare the lists of VOC and SBD with the archives", file=sys.stderr)
    return recipe
