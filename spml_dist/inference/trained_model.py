"""A trained model in somebody's hands: an image goes in, the class of each pixel comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spml_dist.config import load
from spml_dist.errors import DataError, RunError
from spml_dist.inference.crf import refined
from spml_dist.inference.device import resolve_device
from spml_dist.inference.pixel_labels import label
from spml_dist.inference.scores import scores
from spml_dist.inference.views import Views
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
    crop: int = Views.crop
    """side of the crops that it was trained on, as far as its run is known"""
    swaps: tuple[tuple[int, int], ...] = ()
    """pairs of classes that change places in a mirror"""

    def views(
        self, scales: Sequence[float] = (1.0,), mirror: bool = False, window: int | None = None
    ) -> Views:
        """How images are shown to it: at several scales, also mirrored, in windows of so many pixels a side.

        Raises ConfigError for what cannot be done.
        """
        return Views(
            tuple(scales),
            mirror,
            window,
            longer_side=self.longer_side,
            crop=self.crop,
            swaps=self.swaps,
        )

    def __call__(self, image: np.ndarray, views: Views | None = None, *, crf: bool = False) -> np.ndarray:
        """Class of each pixel by the joint classifier: [H, W] uint8, ids in 0..K-1.

        image: [H, W, 3] uint8 RGB of any size, as PIL gives it (OpenCV reads BGR); views: of `views`, None =
        one look at the whole image; crf: refine by a dense CRF (extra `crf`). Raises DataError for anything
        else.
        """
        _require_rgb(image)
        (labels,) = label(self.network, [image], views or self.views(), refine=crf)
        return labels.classes

    def scores(self, image: np.ndarray, views: Views | None = None, *, crf: bool = False) -> np.ndarray:
        """Probability of each class at each pixel: [K, H, W] float32; `argmax(axis=0)` is what a call gives.

        image, views, crf: as above, and DataError as above.
        """
        _require_rgb(image)
        probabilities = scores(self.network, image, views or self.views())
        return refined(image, probabilities) if crf else probabilities


def load_model(path: str | Path, device: str = "auto") -> TrainedModel:
    """A trained segmenter, ready to be called with images.

    path: a run folder, the folder of its export, or the file model.safetensors beside its model.json. Where
    the export lies in its run, images are scaled as the run's `evaluation.longer_side` says, and mirrored and
    windowed as it was trained. device: auto, cpu or cuda, as `engine.device`. Raises RunError for a place
    without a whole model or with one that is no segmenter, ConfigError for a GPU that is not there.
    """
    folder = export_folder(Path(path))
    network, info = export.load(folder)
    network.to(resolve_device(device))
    return TrainedModel(
        network, tuple(info["classes"]), info["background"], info["step"], **_known_of_run(folder)
    )


def predict(
    model: TrainedModel | str | Path,
    image: np.ndarray,
    *,
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
    window: int | None = None,
    crf: bool = False,
) -> np.ndarray:
    """Class of each pixel of one image: [H, W] uint8, ids in 0..K-1.

    model: what `load_model` gave, or what it takes (for many images load it once); image: [H, W, 3] uint8
    RGB; scales, mirror, window: as `TrainedModel.views`, whose mean decides; crf: refine by a dense CRF
    (extra `crf`). Raises as `load_model` and `TrainedModel`.
    """
    trained = model if isinstance(model, TrainedModel) else load_model(model)
    return trained(image, trained.views(scales, mirror, window), crf=crf)


def _require_rgb(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise DataError("image: no array of uint8", kind, "give RGB as a numpy array of 0 to 255")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DataError("image: not of shape [H, W, 3]", list(image.shape), "give RGB with the colours last")


def export_folder(path: Path) -> Path:
    """The folder with model.json that is meant."""
    if path.is_file():
        return path.parent
    if (path / MODEL_INFO).exists():
        return path
    if not RunFolder(path).export.is_dir():
        remedy = "give the folder of a finished run, its export, or model.safetensors in that"
        raise RunError(f"{path}: holds no trained model", None, remedy)
    return RunFolder(path).export


def _known_of_run(export_folder: Path) -> dict[str, Any]:
    """What the run around an export says of images; of a copy elsewhere nothing is known."""
    run = RunFolder(export_folder.resolve().parent)
    if run.export != export_folder.resolve() or not run.config.exists():
        return {}
    config = load(run.config)
    return {
        "longer_side": config.evaluation.longer_side,
        "crop": config.stream.crop,
        "swaps": config.stream.mirror_swaps,
    }
