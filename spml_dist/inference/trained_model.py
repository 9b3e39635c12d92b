"""A trained model in somebody's hands: an image goes in, the class of each pixel comes out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from spml_dist.config import load
from spml_dist.errors import DataError, RunError
from spml_dist.inference import whole_image
from spml_dist.inference.device import resolve_device
from spml_dist.model import export
from spml_dist.model.segmenter import Segmenter
from spml_dist.run_folder import MODEL_INFO, RunFolder


@dataclass(frozen=True)
class TrainedModel:
    """A segmenter with what it takes to use it; call it with an image."""

    network: Segmenter
    """in evaluation mode, on its device"""
    classes: tuple[str, ...]
    """names by class id"""
    background: int | None
    """class of what is no object; None where the training set has none"""
    step: int
    """optimiser steps that it has learnt for"""
    longer_side: int | None = None
    """pixels to which an image's longer side is scaled first; None = the image's own size"""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Class of each pixel by the joint classifier: [H, W] uint8, ids in 0..K-1.

        image: [H, W, 3] uint8 RGB of any size, as PIL gives it (OpenCV reads BGR). Raises DataError for
        anything else.
        """
        return self._logits(image).argmax(axis=0).astype(np.uint8)

    def scores(self, image: np.ndarray) -> np.ndarray:
        """Probability of each class at each pixel: [K, H, W] float32; `argmax(axis=0)` is what a call gives.

        image: as above, and DataError as above.
        """
        return softmax(self._logits(image), axis=0)

    def _logits(self, image: np.ndarray) -> np.ndarray:
        _require_rgb(image)
        return whole_image.classify(self.network, whole_image.embed(self.network, image, self.longer_side))


def load_model(path: str | Path, device: str = "auto") -> TrainedModel:
    """A trained segmenter, ready to be called with images.

    path: a run folder, the folder of its export or one that `spml-dist export` wrote, or the file
    model.safetensors beside its model.json. Images are scaled as the run's `evaluation.longer_side` says
    where the export lies in its run, and as the export says elsewhere. device: auto, cpu or cuda, as
    `engine.device`. Raises RunError for a place without a whole model or with one that is no
    segmenter, ConfigError for a GPU that is not there.
    """
    folder = _export_folder(Path(path))
    network, info = export.load(folder)
    network.to(resolve_device(device))
    return TrainedModel(
        network, tuple(info["classes"]), info["background"], info["step"], _longer_side(folder, info)
    )


def predict(model: TrainedModel | str | Path, image: np.ndarray) -> np.ndarray:
    """Class of each pixel of one image: [H, W] uint8, ids in 0..K-1.

    model: what `load_model` gave, or what it takes (for many images load it once); image: [H, W, 3] uint8
    RGB. Raises as `load_model` and `TrainedModel`.
    """
    return (model if isinstance(model, TrainedModel) else load_model(model))(image)


def _require_rgb(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise DataError("image: no array of uint8", kind, "give RGB as a numpy array of 0 to 255")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DataError("image: not of shape [H, W, 3]", list(image.shape), "give RGB with the colours last")


def _export_folder(path: Path) -> Path:
    """The folder with model.json that is meant."""
    if path.is_file():
        return path.parent
    if (path / MODEL_INFO).exists():
        return path
    if not RunFolder(path).export.is_dir():
        remedy = "give the folder of a finished run, its export, or model.safetensors in that"
        raise RunError(f"{path}: holds no trained model", None, remedy)
    return RunFolder(path).export


def _longer_side(export_folder: Path, info: dict[str, Any]) -> int | None:
    """What the run around an export scales images to; elsewhere what the export says, if it does."""
    run = RunFolder(export_folder.resolve().parent)
    inside = run.export == export_folder.resolve() and run.config.exists()
    return load(run.config).evaluation.longer_side if inside else info.get("longer_side")
