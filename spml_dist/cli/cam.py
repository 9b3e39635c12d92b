"""`spml-dist cam`: seeds from image tags and boxes, by a classifier's class activation maps."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from spml_dist import __version__
from spml_dist.cli import train
from spml_dist.cli.arguments import add_verb, at_least
from spml_dist.config import Config, load
from spml_dist.config.cam import cam_experiment
from spml_dist.errors import ConfigError, DataError, RunError
from spml_dist.run_folder import MODEL_WEIGHTS, RunFolder

if TYPE_CHECKING:
    from spml_dist.data.format.manifest import Manifest
    from spml_dist.data.pack.pack import Described
    from spml_dist.labeling.cams import CamParts

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
    said = "train the classifier of image tags; the same command resumes"
    training = add_verb(verbs, "train", said, f"{said[0].upper()}{said[1:]}.", TRAIN_EXAMPLES)
    train.add_arguments(training)
    training.set_defaults(run=run_train)
    said = "label the images of a pack by the classifier's maps"
    _add_infer(
        add_verb(verbs, "infer", said, f"{said[0].upper()}{said[1:]}, into a new pack.", INFER_EXAMPLES)
    )


def run_train(args: argparse.Namespace) -> int:
    config = train.absolute(cam_experiment(load(args.config, args.overrides)), Path.cwd())
    _require_tags(config.data.train)
    if train.launched(config, "cam", args.alone):
        folder = train.short(Path(config.output) / config.name)
        print(f"trained; label with: spml-dist cam infer {folder} {config.data.train} --out OUT", flush=True)
    return 0


def run_infer(args: argparse.Namespace) -> int:
    from spml_dist.data.format.manifest import read_manifest
    from spml_dist.data.pack.pack import Described
    from spml_dist.labeling import seeds_note
    from spml_dist.labeling.cams import KIND
    from spml_dist.labeling.seed_quality import measure

    config = _settings(args.run_folder, args.overrides)
    if Path(args.shards).resolve() == Path(args.out).resolve():
        raise DataError(f"{args.out}: the pack that is read", None, "give another --out")
    manifest = read_manifest(args.shards)
    if KIND in manifest.counts.kinds:
        remedy = "label the pack that it was made from"
        raise DataError(f"{args.shards}: has seeds of CAM already", None, remedy)
    parts = _parts(args, config, manifest)
    described = Described(
        f"{manifest.name}-{KIND}",
        manifest.split,
        f"{manifest.labels},{KIND}",
        manifest.classes,
        manifest.background,
        manifest.regions,
    )
    note = {"run": config.name, "shards": str(args.shards), "cam": config.cam.model_dump(mode="json")}
    note |= _labelled(args, parts, described)
    result = note | measure(args.out, KIND, cache=parts.cache)
    seeds_note.write(args.out, result)
    print(_table(result))
    print(f"\nwritten to {args.out}; train with: spml-dist train CONFIG data.train={args.out}")
    return 0


def _labelled(args: argparse.Namespace, parts: CamParts, described: Described) -> dict:
    """Write the pack, unless this very command has and was cut off later; what its note says of it."""
    from spml_dist.data.pack.pack import pack_parts
    from spml_dist.labeling import seeds_note

    fingerprint = _fingerprint(parts)
    made_by = seeds_note.digest([fingerprint, asdict(described)])
    sizes = [shard.samples for shard in parts.manifest.shards]
    written = seeds_note.left_unmeasured(args.out, made_by) or pack_parts(
        parts, sizes, args.out, described, workers=args.workers, fingerprint=fingerprint
    )
    note = {
        "made_by": made_by,
        "manifest": seeds_note.digest(asdict(written)),
        "rejected": written.rejected,
    }
    seeds_note.write(args.out, note)
    return note


def _parts(args: argparse.Namespace, config: Config, manifest: Manifest) -> CamParts:
    """What labels the pack, once the network is known to be one that can."""
    import hashlib

    from spml_dist.data.format.compatibility import first_difference
    from spml_dist.data.stream.shard_cache import Cache
    from spml_dist.inference.device import chosen
    from spml_dist.labeling.cams import CamParts
    from spml_dist.model.export import load as load_network

    folder = RunFolder(args.run_folder.resolve()).export
    _, info = load_network(folder, "cam")
    _require_unmirrored(config)
    seen = first_difference(manifest.classes, manifest.background, info["classes"], info["background"])
    if seen:
        what = f"{args.shards}: classes are not those that {args.run_folder} was trained for"
        raise DataError(what, seen, "train the CAM classifier on a pack of the same classes")
    stream = config.stream
    return CamParts(
        export=folder,
        digest=hashlib.sha256((folder / MODEL_WEIGHTS).read_bytes()).hexdigest(),
        shards=str(args.shards),
        manifest=manifest,
        settings=config.cam,
        device=chosen(config.engine.device),
        cache=Cache(stream.cache, stream.cache_gb, stream.retry_seconds),
    )


def _settings(run: Path, overrides: list[str]) -> Config:
    """The run's configuration, of which cam.* and the device may change."""
    if not run.is_dir():
        raise RunError(f"{run}: no such run folder", None, "give the folder that `spml-dist cam train` wrote")
    for text in overrides:
        if not text.startswith(("cam.", "engine.device=")) or text.startswith("cam.steps="):
            key = text.partition("=")[0]
            raise ConfigError(
                f"{key} cannot change", None, "the run is trained: only cam.* and engine.device"
            )
    return load(RunFolder(run).config, overrides)


def _require_unmirrored(config: Config) -> None:
    if config.cam.mirror and config.stream.mirror_swaps:
        remedy = "stream.mirror_swaps says that classes change places in a mirror: set it to false"
        raise ConfigError("cam.mirror", "true", remedy)


def _require_tags(folder: str) -> None:
    from spml_dist.data.format.manifest import read_manifest

    counts = read_manifest(folder).counts
    if not any(counts.images_tagged):
        remedy = "pack with tags, such as `--labels tags`"
        raise DataError(f"{folder}: no image is known to show a class", None, remedy)


def _fingerprint(parts: CamParts) -> str:
    """Everything that decides what is written, but for the description."""
    tars = [shard.sha256 for shard in parts.manifest.shards]
    return json.dumps([__version__, parts.digest, parts.settings.model_dump(mode="json"), parts.device, tars])


def _table(result: dict) -> str:
    """Per cent of the labelled images' pixels, and how many of them are right, by class."""
    head = (
        f"{result['images_labelled']} of {result['images']} images got seeds, "
        f"{result['images_measured']} of them have ground truth; per cent of their pixels"
    )
    rows = [*result["classes"].items(), ("all (IoU: mean)", result["all"])]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'class':<{width}}  labelled  precision    IoU"]
    for name, values in rows:
        labelled, precision, iou = (values[key] for key in ("labelled", "precision", "iou"))
        lines.append(
            f"{name:<{width}}  {_percent(labelled):>8}  {_percent(precision):>9}  {_percent(iou):>5}"
        )
    return "\n".join([head, "", *lines])


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _add_infer(parser: argparse.ArgumentParser) -> None:
    folder = "run folder that `spml-dist cam train` wrote"
    parser.add_argument("run_folder", metavar="RUN", type=Path, help=folder)
    parser.add_argument("shards", metavar="SHARDS", help="folder or address of the pack to label")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to cam.* of the run")
    parser.add_argument("--out", required=True, help="folder or address to write the new pack to")
    workers = "processes that label side by side, on the Ray cluster of RAY_ADDRESS if it is set (default: 1)"
    parser.add_argument("--workers", metavar="N", type=at_least(1), default=1, help=workers)
    parser.set_defaults(run=run_infer)
