"""An evaluation in pictures: confusion matrices, and images beside what was predicted for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spml_dist.drawing import overlay
from spml_dist.drawing.contact_sheet import Card, class_chips, sheet
from spml_dist.inference.split_counts import EvaluatedImage
from spml_dist.report import charts
from spml_dist.run_folder import RunFolder


def write(
    run: RunFolder,
    result: dict[str, Any],
    images: Sequence[EvaluatedImage],
    best: Sequence[EvaluatedImage] = (),
    worst: Sequence[EvaluatedImage] = (),
) -> list[Path]:
    """Write the confusion matrices of all read-outs, a sheet of the given images, and one of the best and the
    worst; sheets of an evaluation before go where there are none.

    result: as `evaluate` gives it. Returns the files; raises DataError where they cannot be written.
    """
    readouts = {key: key.replace("_oracle", " (oracle)").capitalize() for key in result["readouts"]}
    matrices = [
        charts.picture(charts.confusion_figure(result["confusion"][key], result["classes"], title))
        for key, title in readouts.items()
    ]
    named = result["split"], result["oracle"], result["ways"]
    files = [run.confusion(*named)]
    overlay.write_picture(files[0], np.concatenate(matrices, axis=1))
    spread = f"{len(images)} of {result['images']:,} images"
    extremes = f"the {len(best)} best and the {len(worst)} worst images"
    for path, heading, shown in (
        (run.pictures(*named), spread, images),
        (run.extremes(*named), extremes, [*best, *worst]),
    ):
        if shown:
            files.append(path)
            overlay.write_picture(path, _sheet(result, heading, shown, readouts))
        else:
            path.unlink(missing_ok=True)  # of an evaluation before this one, whose numbers are gone
    return files


def _sheet(
    result: dict[str, Any], about: str, images: Sequence[EvaluatedImage], readouts: dict[str, str]
) -> np.ndarray:
    """A card for each image: itself, its labels, its segments, the predictions, ground truth."""
    classes = result["classes"]
    colours = overlay.palette(len(classes), result["background"])
    # A split packed with its masks has no weak labels to show.
    weak = any((image.sample.semantic != image.mask).any() for image in images)
    cards, labels = [], set(range(len(classes)))
    for each in images:
        image, semantic = each.sample.image, each.sample.semantic
        views = {"Image": image}
        if weak:
            views["Weak labels"] = overlay.overlay(image, semantic, colours, 0.9)
            labels |= set(np.unique(semantic).tolist())
        views["Segments"] = overlay.outline(image, each.segments)
        for key, title in readouts.items():
            views[title] = overlay.overlay(image, each.predictions[key], colours)
        views["Ground truth"] = overlay.overlay(image, each.mask, colours)
        labels |= set(np.unique(each.mask).tolist())
        note = f"mIoU of its classes {100 * each.miou:.1f} %"
        cards.append(Card(each.name, tuple(views.items()), note))
    heading = f"{result['run']} · {result['split']} · {about}"
    return sheet(heading, cards, class_chips(sorted(labels), classes, colours))
