"""Contour strength from a network that its user brings as an ONNX file, run by OpenCV."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from spml_dist.data.annotations.contours import Contours
from spml_dist.errors import DataError

_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
_REMEDY = "give an ONNX network that takes [1, 3, H, W] and ends in [1, 1, H, W] of 0..1"


def network_contours(image: np.ndarray, path: Path) -> Contours:
    """Contours of an image by a network such as HED (Xie and Tu, Holistically-nested edge detection, 2015).

    image: [H, W, 3] uint8 RGB. The network gets [1, 3, H, W] float32, BGR in 0..255 less the mean of
    ImageNet, and gives contour strengths in 0..1 as its last output, at any size.
    Raises DataError for a file or an output that is none of these.
    """
    blob = cv2.dnn.blobFromImage(np.ascontiguousarray(image[..., ::-1]), 1.0, mean=_MEAN_BGR)
    network = _network(path)
    try:
        network.setInput(blob)
        output = network.forward(network.getUnconnectedOutLayersNames())[-1]
    except cv2.error as error:
        cause = f"{image.shape[1]}×{image.shape[0]} pixels, {error.err}"
        raise DataError(f"{path}: does not run on this image", cause, _REMEDY) from error
    strength = _checked(np.asarray(output, np.float32), path)
    strength = np.clip(cv2.resize(strength, image.shape[1::-1]), 0, 1)
    return Contours(strength, _across(strength))


@lru_cache(maxsize=1)
def _network(path: Path) -> cv2.dnn.Net:
    if not path.is_file():
        raise DataError(f"{path}: no such file", None, _REMEDY)
    try:
        return cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        raise DataError(f"{path}: cannot be read as ONNX", error.err, _REMEDY) from error


def _checked(output: np.ndarray, path: Path) -> np.ndarray:
    if output.ndim < 2 or output.size != output.shape[-1] * output.shape[-2] or not output.size:
        raise DataError(f"{path}: the last output is no single map", output.shape, _REMEDY)
    low, high = float(output.min()), float(output.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise DataError(f"{path}: strengths outside 0..1", f"{low:.3g} to {high:.3g}", _REMEDY)
    return output.reshape(output.shape[-2:])


def _across(strength: np.ndarray) -> np.ndarray:
    """Direction in which a ridge falls off the fastest: the eigenvector of the Hessian's least eigenvalue."""
    smooth = cv2.GaussianBlur(strength, (0, 0), 2.0, borderType=cv2.BORDER_REFLECT)
    xx, yy, xy = (cv2.Sobel(smooth, cv2.CV_32F, *order) for order in ((2, 0), (0, 2), (1, 1)))
    along = np.arctan2(2 * xy, xx - yy) / 2
    return np.mod(along + np.float32(np.pi / 2), np.float32(np.pi))
