"""`spml-dist cam`: seeds from image tags and boxes, by a classifier's class activation maps."""

from __future__ import annotations

import argparse
from pathlib import Path

from spml_dist.cli import train
from spml_dist.cli.arguments import add_verb, at_least, tell_rejected
from spml_dist.config import differences, explain
from spml_dist.config.cam import cam_experiment

EXAMPLES = """\
the whole path, from tags to a segmenter:
  spml-dist pack folder DIR --labels tags --split train --out data/tags
  spml-dist cam train configs/mine.yaml data.train=data/tags
  spml-dist cam infer runs/mine_cam data/tags --out data/seeds
  spml-dist train configs/mine.yaml data.train=data/seeds

`spml-dist cam VERB --help` tells more.
"""
TRAIN_EXAMPLES = """\
examples:
  spml-dist cam train configs/voc12_tag.yaml
  spml-dist cam train configs/quickstart.yaml cam.steps=50 --alone

CONFIG is the experiment that is to be trained with the seeds. Its section cam says for how long; backbone,
stream, optimiser and engine are the experiment's. The run folder is OUTPUT/NAME_cam; it resumes, stops and is
tracked as one of `spml-dist train`.
"""
INFER_EXAMPLES = """\
examples:
  spml-dist cam infer runs/voc12_tag_cam data/voc12/train --out data/voc12/seeds
  spml-dist cam infer runs/mine_cam data/tags --out data/seeds --workers 4 cam.foreground=0.4

An image with boxes gets the seeds of its boxes; one without boxes and without annotated pixels gets those of
its tags; all others stay as they are, and so does every pixel that is annotated. The same command goes on
where it was interrupted.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        "cam",
        "seeds from image tags and boxes: train a classifier, label pixels by its maps",
        "Image tags and boxes say what is in an image, and not which pixels. A classifier of the tags is "
        "trained; where its activation is strong, pixels are labelled.",
        EXAMPLES,
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True, dest="cam_verb", title="verbs")
    about = "train the classifier of image tags; the same command resumes"
    training = add_verb(verbs, "train", about, f"{about[0].upper()}{about[1:]}.", TRAIN_EXAMPLES)
    train.add_arguments(training)
    training.set_defaults(run=run_train)
    about = "label the images of a pack by the classifier's maps"
    _add_infer(
        add_verb(verbs, "infer", about, f"{about[0].upper()}{about[1:]}, into a new pack.", INFER_EXAMPLES)
    )


def _add_infer(parser: argparse.ArgumentParser) -> None:
    folder = "run folder that `spml-dist cam train` wrote"
    parser.add_argument("run_folder", metavar="RUN", type=Path, help=folder)
    parser.add_argument("shards", metavar="SHARDS", help="folder or address of the pack to label")
    changes = "changes to cam.* of the run"
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=changes)
    parser.add_argument("--out", required=True, help="folder or address to write the new pack to")
    workers = "processes that label side by side, on the Ray cluster of RAY_ADDRESS if it is set (default: 1)"
    parser.add_argument("--workers", metavar="N", type=at_least(1), default=1, help=workers)
    parser.set_defaults(run=run_infer)


def run_train(args: argparse.Namespace) -> int:
    """Train the classifier to the end, and say what comes next."""
    from spml_dist.training.absolute_paths import absolute
    from spml_dist.training.launch import folder_of, from_here, launch

    experiment, origins = explain(args.config, args.overrides)
    config = cam_experiment(experiment)
    origins |= {key: "spml-dist cam train" for key, *_ in differences(experiment, config)}
    config = absolute(config, Path.cwd())
    if launch(config, "cam", alone=args.alone, origins=origins):
        folder = from_here(folder_of(config).path)
        print(f"trained; label with: spml-dist cam infer {folder} {config.data.train} --out OUT", flush=True)
    return 0


def run_infer(args: argparse.Namespace) -> int:
    """Label a pack, and print how good the seeds are."""
    from spml_dist.labeling.infer_pack import infer_pack
    from spml_dist.labeling.label_quality import table

    result = infer_pack(args.run_folder, args.shards, args.out, args.overrides, args.workers)
    print(table(result, "seeds"))
    print(f"\nwritten to {args.out}; train with: spml-dist train CONFIG data.train={args.out}")
    return tell_rejected(result, args.out)
