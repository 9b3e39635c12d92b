"""spml-dist evaluate: how good a trained run is on a split, by both read-outs."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from spml_dist.cli.arguments import add_verb
from spml_dist.errors import RunError
from spml_dist.files.write import write_text
from spml_dist.run_folder import RunFolder

SPLITS = ("val", "test", "train")

EXAMPLES = """\
examples:
  spml-dist evaluate runs/quickstart
  spml-dist evaluate runs/gid15_scribble --split test --json test.json
  spml-dist evaluate runs/quickstart --oracle      # neighbours that are labelled with ground truth
  spml-dist evaluate runs/quickstart --pictures 20

The splits are those of RUN/config.yaml, packed with masks. Every image of data.train is a neighbour, and is
cut into segments first.
"""


def add(subparsers) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        subparsers,
        "evaluate",
        "measure a trained run on a split",
        "mIoU of a trained run by its classifier and by nearest neighbours; writes the result, images and "
        "the report into the run folder.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="RUN", type=Path, help="run folder that `spml-dist train` wrote")
    parser.add_argument("--split", choices=SPLITS, default="val", help="default: val")
    parser.add_argument(
        "--oracle",
        action="store_true",
        help="label the neighbours' prototypes with ground truth, for comparison",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the result here too")
    parser.add_argument(
        "--pictures", metavar="N", type=int, help="images to draw; default: evaluation.pictures"
    )
    parser.set_defaults(run=run)


def run(args) -> int:
    """Evaluate, print the table, and write what is to be looked at."""
    from spml_dist.config import load
    from spml_dist.report import write_report

    folder = args.folder
    _require_trained(folder)
    places = RunFolder(folder)
    config = load(places.config)
    data = getattr(config.data, args.split)
    if data is None:
        raise RunError(
            f"{places.config}: data.{args.split} is null",
            None,
            f"write the path of a packed split there, or give another --split ({_packed(config)})",
        )
    if args.json is not None:
        _require_place(args.json)  # before the images, which take long
    shown = config.evaluation.pictures if args.pictures is None else args.pictures
    result, drawn = _evaluated(args, config, data, shown)

    numbers = places.result(args.split, args.oracle)
    table = _table(result)
    written = [numbers, numbers.with_suffix(".md")]
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    write_text(written[0], text)
    write_text(written[1], table)
    if args.json is not None:
        write_text(args.json, text)
    written += _images(places, drawn, result)
    written.append(write_report(folder))
    print(table)
    print("\n".join(f"wrote {path}" for path in written))
    _track(folder, config)
    return 0


def _packed(config) -> str:
    return ", ".join(split for split in SPLITS if getattr(config.data, split))


def _require_place(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be written", error.strerror, "choose a writable place") from error


def _require_trained(folder: Path) -> None:
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder", None, "give the folder that `spml-dist train` wrote")
    if not RunFolder(folder).export.is_dir():
        raise RunError(
            f"{folder}/export: no trained model yet", None, "finish the training: the same command resumes it"
        )


def _evaluated(args, config, data, shown: int) -> tuple[dict, list]:
    """The result, and `shown` images spread evenly over the split."""
    import numpy as np

    from spml_dist.data.format.manifest import read_manifest
    from spml_dist.data.stream.shard_cache import Cache
    from spml_dist.inference.device import chosen
    from spml_dist.inference.evaluate import evaluate
    from spml_dist.model.export import load

    model, info = load(RunFolder(args.folder).export)
    model.to(chosen(config.engine.device))
    wanted = set(np.linspace(0, read_manifest(data).samples - 1, shown).round().astype(int).tolist())
    drawn = []
    result = evaluate(
        model,
        info,
        data,
        config.data.train,
        config.evaluation,
        split=args.split,
        seed=config.seed,
        oracle=args.oracle,
        cache=Cache(config.stream.cache, config.stream.cache_gb, config.stream.retry_seconds),
        each=lambda image: drawn.append(image) if image.number in wanted else None,
    )
    return {"run": config.name, "step": info.get("step"), **result}, drawn


def _table(result: dict) -> str:
    """Both read-outs side by side in per cent, as Markdown."""
    readouts = result["readouts"]
    there = set(result["classes_present"])
    rows = [[name, *(v["iou"][name] for v in readouts.values())] for name in result["classes"]]
    rows += [["mean IoU", *(v["miou"] for v in readouts.values())]]
    if 0 < len(there) < len(result["classes"]):  # the others count as 0 in the mean of all
        means = (statistics.mean(v["iou"][name] for name in there) for v in readouts.values())
        rows += [["mean of shown classes", *means]]
    rows += [["pixel accuracy", *(v["pixel_accuracy"] for v in readouts.values())]]
    names = [
        row[0] + ("" if row[0] in there or row[0] not in result["classes"] else " (not shown)")
        for row in rows
    ]
    first = max(map(len, [*names, "class"]))
    titles = [name.replace("_oracle", " (oracle)") for name in readouts]
    lines = [f"| {'class':<{first}} | " + " | ".join(titles) + " |"]
    lines += [f"| {'-' * first} | " + " | ".join("-" * (len(title) - 1) + ":" for title in titles) + " |"]
    for name, (_, *values) in zip(names, rows, strict=True):
        cells = [f"{100 * value:>{len(title)}.1f}" for value, title in zip(values, titles, strict=True)]
        lines.append(f"| {name:<{first}} | " + " | ".join(cells) + " |")
    head = f"{result['run']} on {result['split']}: {result['images']} images, IoU in per cent"
    return "\n".join([head, "", *lines]) + "\n"


def _images(run: RunFolder, drawn: list, result: dict) -> list[Path]:
    """The contact sheet and the confusion matrices of both read-outs."""
    import numpy as np

    from spml_dist.drawing import overlay
    from spml_dist.report.charts import confusion_picture

    classes = result["classes"]
    titles = {key: key.replace("_oracle", " (oracle)").capitalize() for key in result["readouts"]}
    matrices = [confusion_picture(result["confusion"][key], classes, titles[key]) for key in titles]
    evaluation = result["split"], result["oracle"]
    written = [run.confusion(*evaluation)]
    overlay.write_picture(written[0], np.concatenate(matrices, axis=1))
    if drawn:
        colours = overlay.palette(len(classes), result["background"])
        # A split packed with its masks has no weak labels to show.
        weak = any((image.sample.semantic != image.sample.mask).any() for image in drawn)
        rows = [
            [
                image.sample.image,
                *([overlay.overlay(image.sample.image, image.sample.semantic, colours, 0.9)] * weak),
                overlay.outline(image.sample.image, image.segments),
                *(overlay.overlay(image.sample.image, image.predictions[key], colours) for key in titles),
                overlay.overlay(image.sample.image, image.sample.mask, colours),
            ]
            for image in drawn
        ]
        heads = ["Image", *(["Weak labels"] * weak), "Segments", *titles.values(), "Ground truth"]
        written.append(run.pictures(*evaluation))
        overlay.write_picture(written[-1], overlay.panel(rows, heads, classes, colours))
    return written


def _track(folder: Path, config) -> None:
    """Add the result to the run's MLflow record, if it has one; a server out of reach loses nothing."""
    from spml_dist.config import flatten
    from spml_dist.tracking import mlflow_sync

    uri = mlflow_sync.address(folder)
    if uri is None:
        return
    missing = mlflow_sync.sync(folder, uri, config.tracking.experiment, config.name, flatten(config))
    if missing:
        print(missing, file=sys.stderr)
