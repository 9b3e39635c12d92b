"""An evaluation in pictures: confusion matrices, and images beside what was predicted for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spml_dist.drawing import overlay
from spml_dist.inference.evaluate import EvaluatedImage
from spml_dist.report.charts import confusion_picture
from spml_dist.run_folder import RunFolder


def write(run: RunFolder, result: dict[str, Any], images: Sequence[EvaluatedImage]) -> list[Path]:
    """Write the confusion matrices of both read-outs, and a sheet of the given images if there are any.

    result: as `evaluate` gives it. Returns the files; raises DataError where they cannot be written.
    """
    titles = {key: key.replace("_oracle", " (oracle)").capitalize() for key in result["readouts"]}
    matrices = [
        confusion_picture(result["confusion"][key], result["classes"], title) for key, title in titles.items()
    ]
    files = [run.confusion(result["split"], result["oracle"])]
    overlay.write_picture(files[0], np.concatenate(matrices, axis=1))
    if images:
        files.append(run.pictures(result["split"], result["oracle"]))
        overlay.write_picture(files[1], _sheet(result, images, titles))
    return files


def _sheet(result: dict[str, Any], images: Sequence[EvaluatedImage], titles: dict[str, str]) -> np.ndarray:
    """A row for each image: itself, its labels, its segments, both predictions, ground truth."""
    colours = overlay.palette(len(result["classes"]), result["background"])
    # A split packed with its masks has no weak labels to show.
    weak = any((image.sample.semantic != image.mask).any() for image in images)
    rows = [
        [
            image.sample.image,
            *([overlay.overlay(image.sample.image, image.sample.semantic, colours, 0.9)] * weak),
            overlay.outline(image.sample.image, image.segments),
            *(overlay.overlay(image.sample.image, image.predictions[key], colours) for key in titles),
            overlay.overlay(image.sample.image, image.mask, colours),
        ]
        for image in images
    ]
    heads = ["Image", *(["Weak labels"] * weak), "Segments", *titles.values(), "Ground truth"]
    return overlay.panel(rows, heads, result["classes"], colours)
