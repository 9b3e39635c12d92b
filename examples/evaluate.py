"""A finished run from Python: its numbers on a split, and its labels of one image.

spml-dist train configs/quickstart.yaml
python examples/evaluate.py runs/quickstart some.jpg
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image

from spml_dist import evaluate, load_model


def report(run: str) -> dict:
    """Measure the run on its validation split; RUN/result.json, the table and the report are written too."""
    result = evaluate(run, split="val", pictures=0)
    for readout, numbers in result["readouts"].items():
        print(f"{readout}: mean IoU {100 * numbers['miou']:.1f} %")
    return result


def label(run: str, image: np.ndarray) -> np.ndarray:
    """Class of each pixel of an RGB image, [H, W, 3] uint8. Returns [H, W] uint8."""
    model = load_model(run)
    labels = model(image)
    confidence = model.scores(image).max(axis=0)
    for number, count in enumerate(np.bincount(labels.ravel(), minlength=len(model.classes))):
        if count:
            share, sure = count / labels.size, confidence[labels == number].mean()
            print(f"{model.classes[number]}: {100 * share:.1f} % of the pixels, {100 * sure:.0f} % sure")
    return labels


if __name__ == "__main__":
    run, *files = sys.argv[1:]
    report(run)
    for file in files:
        label(run, np.asarray(Image.open(file).convert("RGB")))
