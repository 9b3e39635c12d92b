"""The recipes of `spml-dist pack` for published data sets and bare folders: their options and their help."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from spml_dist.cli.arguments import add_verb
from spml_dist.cli.labels import OPTIONS, add_boxes, add_heat, add_radius, given, heat, say_idle
from spml_dist.cli.pack_options import add_common

if TYPE_CHECKING:
    from spml_dist.data.recipes.recipe import Recipe

VOC2012 = """\
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
COCO = """\
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
DENSEPOSE = """\
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
IMAGES = """\
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
    """Add the recipes."""
    parser = add_verb(
        recipes, "voc2012", "PASCAL VOC 2012 with SBD and its weak labels", "Pack VOC 2012.", VOC2012
    )
    _add_split(
        parser, "masks, scribbles, scribbles80, scribbles50, scribbles30, points, clicks, boxes or tags"
    )
    add_radius(parser, 6)
    add_boxes(parser)
    add_common(parser)
    parser.set_defaults(open_recipe=_voc2012)

    parser = add_verb(recipes, "coco", "COCO's instances or panoptic segments", "Pack COCO 2017.", COCO)
    _add_split(parser, "masks, boxes or tags")
    parser.add_argument(
        "--annotations", choices=("instances", "panoptic"), default="instances", help="(default: %(default)s)"
    )
    add_boxes(parser)
    add_common(parser)
    parser.set_defaults(open_recipe=_coco)

    parser = add_verb(recipes, "densepose", "DensePose-COCO's body parts", "Pack DensePose-COCO.", DENSEPOSE)
    _add_split(parser, "masks, points or keypoints")
    add_radius(parser, 6)
    add_heat(parser)
    add_common(parser)
    parser.set_defaults(open_recipe=_densepose)

    about = "Pack all images of a folder, without labels."
    parser = add_verb(recipes, "images", "a bare folder of images", about, IMAGES)
    parser.add_argument("dir", metavar="DIR", help="folder of images, at any depth")
    parser.add_argument("--split", default="all", help="what to call it (default: all)")
    parser.add_argument(
        "--classes", metavar="FOLDER", help="folder with classes.txt and meta.json (default: no classes)"
    )
    _add_name(parser)
    add_common(parser)
    parser.set_defaults(open_recipe=_images)


def _voc2012(arguments: argparse.Namespace) -> Recipe:
    from spml_dist.data.recipes.voc2012 import AUGMENTED, open_voc2012

    source = (arguments.dir, arguments.split, arguments.labels)
    recipe = open_voc2012(*source, **given(arguments, ("point_radius", "boxes")))
    say_idle(arguments, {"points" if arguments.labels == "clicks" else arguments.labels})
    if recipe.split == "train_aug" and len(recipe.ids) != AUGMENTED:
        counts = f"train_aug: {len(recipe.ids)} images here, {AUGMENTED} in the published set"
        print(f"{counts}; compare the lists of VOC and SBD with the archives", file=sys.stderr)
    return recipe


def _coco(arguments: argparse.Namespace) -> Recipe:
    from spml_dist.data.recipes.coco import open_coco

    _say_reading(arguments)
    source = (arguments.dir, arguments.split, arguments.labels)
    recipe = open_coco(*source, arguments.annotations, **given(arguments, OPTIONS["boxes"]))
    say_idle(arguments, {arguments.labels})
    return recipe


def _densepose(arguments: argparse.Namespace) -> Recipe:
    from spml_dist.data.recipes.densepose import open_densepose

    _say_reading(arguments)
    source = (arguments.dir, arguments.split, arguments.labels)
    recipe = open_densepose(*source, heat=heat(arguments), **given(arguments, OPTIONS["points"]))
    say_idle(arguments, {arguments.labels})
    return recipe


def _images(arguments: argparse.Namespace) -> Recipe:
    from spml_dist.data.recipes.images import open_images

    recipe = open_images(arguments.dir, arguments.split, arguments.classes)
    for note in recipe.notes:
        print(f"{recipe.split}: {note}", file=sys.stderr)
    return recipe


def _say_reading(arguments: argparse.Namespace) -> None:
    print(f"reading the annotations of {arguments.split}", file=sys.stderr)


def _add_split(parser: argparse.ArgumentParser, labels: str) -> None:
    parser.add_argument("dir", metavar="DIR", help="folder that the archives were unpacked in")
    parser.add_argument("--labels", metavar="KIND", required=True, help=labels)
    parser.add_argument("--split", required=True, help="one of the published splits below")
    _add_name(parser)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--name", help="the tars are called NAME-000000.tar, ... (default: data set and split)"
    )
