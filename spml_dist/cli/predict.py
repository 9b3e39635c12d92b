"""`spml-dist predict`: label images with a trained model."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from spml_dist.cli.arguments import SOME_REJECTED, add_verb, at_least
from spml_dist.cli.view_options import add_views, add_workers

EXAMPLES = f"""\
examples:
  spml-dist predict runs/quickstart photo.jpg --out predictions
  spml-dist predict runs/quickstart photos/ --out predictions --workers 4
  spml-dist predict runs/mine data/mine/val --out predictions --scales 0.75,1,1.25 --mirror --crf
  spml-dist predict runs/mine slide.tif --out predictions --window 512 --batch 8
  find photos -name '*.jpg' -mtime -1 | spml-dist predict runs/mine - --out today
  spml-dist predict runs/mine photos/ --out predictions --format coco --format cvat

MODEL is a run folder, its export, or model.safetensors beside model.json. PATHS are images, folders (searched
to any depth), packs, and - for a list of them on standard input. OUT gets

  masks/         PNGs whose pixels are class ids, shown in the classes' colours
  overlays/      the images tinted by them, with the classes' names
  confidence/    probability of the class of each pixel, 255 = 1
  predictions.json   classes, settings, and of every image the classes found and their shares
  coco.json, cvat.zip, labelstudio.json
                     by --format: COCO with runs; CVAT's "Segmentation mask 1.1"; Label Studio's brushes
  rejected.jsonl     images that could not be read, and why; the exit status is then {SOME_REJECTED}

under the images' paths below the folder that holds them all. The same command goes on where it was
interrupted; what it writes does not depend on the number of workers. OUT then holds the images of the last
call: files of those that are no longer given go.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        "predict",
        "label images with a trained model",
        "Label images, folders and packs with the classifier of a trained model: masks, overlays, "
        "confidence, and what was found in a JSON file.",
        EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="run folder, its export, or its weights")
    parser.add_argument("paths", metavar="PATHS", nargs="+", help="images, folders, packs, - for a list")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder to write")
    add_views(parser)
    _add_files(parser.add_argument_group("files"))
    _add_work(parser.add_argument_group("work"))
    parser.set_defaults(run=run)


def _add_files(group: argparse._ArgumentGroup) -> None:
    formats = "also write them as label tools import them; may be given more than once"
    group.add_argument(
        "--format", choices=("coco", "cvat", "labelstudio"), action="append", default=[], help=formats
    )
    group.add_argument("--no-overlays", dest="overlays", action="store_false", help="leave them out")
    group.add_argument("--no-confidence", dest="confidence", action="store_false", help="leave it out")


def _add_work(group: argparse._ArgumentGroup) -> None:
    batch = "images of one size, or windows, that the network is given at a time (default: 1)"
    group.add_argument("--batch", metavar="N", type=at_least(1), default=1, help=batch)
    add_workers(group)
    device = "where to compute; auto takes a GPU if there is one"
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=device)


def run(args: argparse.Namespace) -> int:
    """Label, and say what was found and what could not be read."""
    from spml_dist.inference.image_sources import expand, find_images, require_outside
    from spml_dist.inference.predict_images import PredictSettings, predict_images

    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # names of files are bytes
    paths = expand(args.paths, sys.stdin)
    require_outside(args.out, paths)
    sources, notes = find_images(paths)
    for note in notes:
        print(*note.splitlines(), file=sys.stderr)
    settings = PredictSettings(
        args.scales, args.mirror, args.window, args.crf, args.overlays, args.confidence
    )
    found = predict_images(
        args.model,
        sources,
        args.out,
        settings,
        device=args.device,
        batch=args.batch,
        workers=args.workers,
        formats=tuple(dict.fromkeys(args.format)),
    )
    _tell(found, args.out)
    return SOME_REJECTED if found.rejected else 0


def _tell(found, out: Path) -> None:
    before = f", {found.done_before:,} of them before" if found.done_before else ""
    speed = f"; {found.images_per_s:.1f} images/s" if found.images_per_s else ""
    print(f"labelled {len(found.images):,} images{before}{speed}: {out}")
    if found.rejected:
        first = found.rejected[0]
        count = f"{len(found.rejected):,} of {len(found.images) + len(found.rejected):,} images"
        print(f"{count} could not be read: {out / 'rejected.jsonl'}; {first['reason']}", file=sys.stderr)
