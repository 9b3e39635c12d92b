"""Dense CRF over a classifier's probabilities: labels that follow the image's edges.

Krähenbühl and Koltun 2011, with the constants of the published inference. Extra `crf`.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from spml_dist.errors import DataError, RunError

LARGEST = 4096 * 4096
"""pixels of an image: it is kept whole, for all classes"""
ITERATIONS = 10
SMOOTH_SIDE, SMOOTH_WEIGHT = 1, 3
"""pixels that the smoothing kernel reaches, and its weight"""
EDGE_SIDE, EDGE_COLOUR, EDGE_WEIGHT = 67, 3, 4
"""pixels and grey levels that the bilateral kernel reaches, and its weight"""
_LEAST = 1e-5
"""probability below which none is taken: its logarithm is finite"""


def require() -> ModuleType:
    """The package that does it. Raises RunError, with the extra, where it is not installed."""
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise RunError(
            "dense CRF: pydensecrf is not installed", error, "pip install 'spml-dist[crf]'"
        ) from error
    return densecrf


def require_size(image: np.ndarray, name: str = "image") -> None:
    """Raise DataError for an image [H, W, 3] that is too large. name: of its file."""
    height, width = image.shape[:2]
    if height * width > LARGEST:
        limit = f"{name}: more than the {LARGEST:,} pixels that the dense CRF takes of an image"
        raise DataError(limit, f"{width}×{height}", "leave the CRF out, or cut the image into tiles")


def refined(image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The probabilities after mean field inference, [K, H, W] float32.

    image: [H, W, 3] uint8 RGB; probabilities: [K, H, W] float32. Raises as `require` and
    `require_size`.
    """
    require_size(image)
    classes, height, width = probabilities.shape
    if classes == 1:
        return probabilities  # the package wants two at least
    field = require().DenseCRF2D(width, height, classes)
    unary = -np.log(np.clip(probabilities, _LEAST, 1)).reshape(classes, -1)
    field.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    field.addPairwiseGaussian(sxy=SMOOTH_SIDE, compat=SMOOTH_WEIGHT)
    field.addPairwiseBilateral(
        sxy=EDGE_SIDE, srgb=EDGE_COLOUR, rgbim=np.ascontiguousarray(image), compat=EDGE_WEIGHT
    )
    return np.array(field.inference(ITERATIONS), np.float32).reshape(classes, height, width)
