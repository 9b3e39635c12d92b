"""A trained model as MLflow loads and serves it: encoded pictures in, label maps as PNG out.

MLflow notes the name of this module beside the files of an export and calls `_load_pyfunc`: what is stored is
data alone, and loading it runs no code but this package's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from spml_dist.data.recipes.image_files import decode_image
from spml_dist.inference.trained_model import TrainedModel, load_model

if TYPE_CHECKING:
    from pandas import DataFrame

MODULE = __name__
IMAGE, LABELS, CLASSES = "image", "labels", "classes"
INPUTS, OUTPUTS = {IMAGE: "binary"}, {LABELS: "binary", CLASSES: "string list"}
"""columns and their types: a picture's file; its class ids as an 8-bit PNG, and the names of these ids"""


class PictureModel:
    """What MLflow calls: a row a picture."""

    def __init__(self, model: TrainedModel):
        self._model = model

    def predict(self, pictures: DataFrame, params: dict[str, Any] | None = None) -> DataFrame:
        """pictures: a column IMAGE of files' bytes (JPEG, PNG, ...), shown upright. Raises DataError, with
        its number, for one that `spml-dist predict` would reject."""
        import pandas

        files = enumerate(pictures[IMAGE])
        labels = [self._model(decode_image(content, f"picture {number}")) for number, content in files]
        return pandas.DataFrame(
            {LABELS: [_png(each) for each in labels], CLASSES: [list(self._model.classes)] * len(labels)},
        )


def _load_pyfunc(path: str) -> PictureModel:
    return PictureModel(load_model(path))


def example() -> bytes:
    """A picture to try a model with: a PNG of two ramps."""
    ramp = np.linspace(0, 255, 96, dtype=np.uint8)
    rows, columns = np.meshgrid(ramp, ramp, indexing="ij")
    return _png(np.stack([rows, columns, rows[::-1]], axis=-1))


def _png(values: np.ndarray) -> bytes:
    return cv2.imencode(".png", values)[1].tobytes()
