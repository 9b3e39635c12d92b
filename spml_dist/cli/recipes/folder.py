"""The `folder` recipe of `spml-dist pack`: its options and its help."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from spml_dist.cli.arguments import add_verb
from spml_dist.cli.recipes.labels import add_boxes, add_heat, add_radius, given, heat, say_idle
from spml_dist.cli.recipes.options import add_common
from spml_dist.errors import ConfigError

if TYPE_CHECKING:
    from spml_dist.data.recipes.recipe import Recipe

EXAMPLES = """\
DIR holds classes.txt ("ID name" a line), meta.json ({"background": ID or null}), SPLIT.txt (image ids),
images/ID.jpg, and annotations, any of them for any image:
  masks/ID.png           whole masks                  --labels masks
  weak/KIND/ID.png       scribbles, sparse labels     --labels KIND
  weak/KIND.json         {ID: [[class, x, y], ...]}: points, which become discs; keypoints, which become heat
                         maps, where KIND begins with `keypoints` or is named in --heat-maps
  weak/KIND.json         {ID: [[class, x0, y0, x1, y1], ...]}: a box for every object; x1, y1 exclusive
  weak/tags.json         {ID: [class, ...]}: classes that an image shows
Several KINDs mix: on a pixel the one that --labels names first decides, later ones fill what it leaves
unlabelled, and pixels on which they say different classes are counted. Background that boxes or heat maps
only imply lies outside the boxes of all kinds. An image's tags are all classes that its kinds list or show,
and unknown where none says anything. --labels-from gives each image its own kinds. An image without any is
packed unlabelled and trained on all the same. Masks go along for evaluation.

examples:
  spml-dist pack folder DIR --labels scribble100 --split train --out data/mine/train
  spml-dist pack folder DIR --labels scribble100,tags --split train --out data/mine/train
  spml-dist pack folder DIR --labels points --point-radius 5 --split train --out data/mine/train
  spml-dist pack folder DIR --labels boxes,tags --split train --out data/mine/train   # then: spml-dist cam
  spml-dist pack folder DIR --labels boxes --boxes geometry --split train --out data/mine/train
  spml-dist pack folder DIR --labels points --heat-maps points --keypoint-sigma 8 --split train --out OUT
  spml-dist pack folder DIR --labels masks,scribble100,points,boxes,tags --split train --out data/mine/train
  spml-dist pack folder DIR --labels scribble100,points,boxes,tags --labels-from kinds.json --split train \\
    --out data/mine/train    # kinds.json: {"0001": ["boxes", "tags"], "0002": ["points"], "0003": []}
  spml-dist pack folder DIR --labels masks --split val --out data/mine/val --json val.json
  spml-dist pack folder DIR --labels points --split train --regions ucm:120 --out data/mine/train
"""


def add(recipes: argparse._SubParsersAction) -> None:
    """Add the recipe."""
    about = "Pack one split of a folder of images with any kinds of annotation."
    parser = add_verb(recipes, "folder", "one split of a folder of images", about, EXAMPLES)
    parser.add_argument(
        "dir", metavar="DIR", help="folder with images/, classes.txt, meta.json and SPLIT.txt"
    )
    kinds = "masks and names under weak/, with commas between; on a pixel the first decides"
    parser.add_argument("--labels", metavar="KIND[,KIND...]", required=True, help=kinds)
    own = "JSON file {image id: [KIND, ...]}: the kinds that each image has (default: all that it has)"
    parser.add_argument("--labels-from", metavar="FILE", help=own)
    parser.add_argument("--split", required=True, help="train, val, ...: the name of a list of image ids")
    parser.add_argument("--name", help="the tars are called NAME-000000.tar, ... (default: DIR-SPLIT)")
    _add_marks(parser.add_argument_group("marks"))
    add_common(parser)
    parser.set_defaults(open_recipe=_open)


def _add_marks(group: argparse._ArgumentGroup) -> None:
    add_radius(group, 3)
    add_boxes(group)
    maps = "kinds of points that become heat maps; those that begin with `keypoints` do so anyhow"
    group.add_argument("--heat-maps", metavar="KIND[,KIND...]", type=_names, default=(), help=maps)
    add_heat(group)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _open(arguments: argparse.Namespace) -> Recipe:
    from spml_dist.data.recipes.annotation_kinds import MarkSettings
    from spml_dist.data.recipes.folder import open_folder

    _require_another(arguments.out, Path(arguments.dir))
    options = given(arguments, ("point_radius", "boxes", "heat_maps"))
    marks = MarkSettings(heat=heat(arguments), **options)
    recipe = open_folder(arguments.dir, arguments.split, arguments.labels, marks, arguments.labels_from)
    say_idle(arguments, recipe.forms)
    return recipe


def _require_another(out: str, source: Path) -> None:
    """Raise ConfigError if the pack would be written among the images and annotations it is made from."""
    if Path(out).resolve() in (source.resolve(), (source / "images").resolve()):
        raise ConfigError("--out", out, "choose another folder than the one that is packed")
