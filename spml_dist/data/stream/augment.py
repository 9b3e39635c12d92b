"""Training augmentation: mirror, scale, pad, crop, colours, normalise (SPML paper, section 4)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import cv2
import numpy as np

from spml_dist.records import IGNORED, IMAGENET, Normalisation

# One thread an image: loader processes and workers share the cores already.
cv2.setNumThreads(0)

GREY = np.array([0.3, 0.59, 0.11], np.float32)
"""how bright red, green and blue are"""
BLUR = (0.1, 5.0)
"""bounds between which the blur's width σ is drawn, in pixels"""

Augmented = tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray]
"""a view: image, labels, window"""


def rng_for(seed: int, epoch: int, key: str) -> np.random.RandomState:
    """The random numbers of one image in one epoch, whoever draws them and wherever."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{key}".encode(), digest_size=32).digest()
    return np.random.RandomState(np.frombuffer(digest, dtype="<u4"))


def augment(
    image: np.ndarray,
    labels: tuple[np.ndarray, ...],
    rng: np.random.RandomState,
    crop: tuple[int, int],
    scale: tuple[float, float],
    mirror: bool,
    swaps: Sequence[tuple[int, int]] = (),
    normalisation: Normalisation = IMAGENET,
    grey: float = 0.0,
    blur: float = 0.0,
) -> Augmented:
    """A random view of an image and its label maps.

    image: [H, W, 3] RGB, uint8 or float32 in [0, 1]; labels: [H, W] maps, uint8 or uint16, the semantic one
    first; crop: height and width in pixels; scale: bounds of the uniform factor; mirror: flip left and right
    in half of the views; swaps: pairs of classes that change places in a flipped view (left and right hand);
    normalisation: of the network that is trained. Its mean colour pads the view: 0 once normalised; grey,
    blur: probabilities that the view loses its colours and that it is blurred, as the release does for its
    classifier.
    Returns the image as [3, *crop] float32, normalised, the labels as [*crop] of their own dtypes, and the
    window, [4] float32: where the view lies in the image, as (top, left, bottom, right) in shares of its
    height and width; left > right in a flipped view. The view is padded at the bottom and on the right
    (there the window leaves 0..1), labels with 255: since the semantic label of those pixels is then
    *ignored*, their other labels mean nothing.

    Seven numbers are drawn whatever the settings: mirror, scale, top, left, grey, blur and its width.
    """
    # Drawn in this order and in any case: a setting that is changed leaves the others as they were.
    flip = rng.uniform(0, 1) >= 0.5
    factor = rng.uniform(*scale)
    maps = (_as_float(image), *labels)
    mirrored = mirror and flip
    if mirrored:
        image, semantic, *others = (cv2.flip(array, 1) for array in maps)
        maps = (image, _swapped(semantic, swaps), *others)
    height, width = (max(1, int(factor * side)) for side in image.shape[:2])
    top = int(rng.uniform(0, max(height - crop[0], 0)))
    left = int(rng.uniform(0, max(width - crop[1], 0)))
    colourless, blurred, sigma = rng.uniform() < grey, rng.uniform() < blur, rng.uniform(*BLUR)

    # The whole image first, then the crop: the pixels of a view do not depend on where its edges lie.
    # In float32 from here to the network, as the release has it: colours between those of two pixels would be
    # rounded by up to 0.5 / 255 in eight bits, for a quarter of the bytes on the way to a GPU.
    image, *resized = (_resize(array, height, width) for array in maps)
    view = slice(top, top + crop[0]), slice(left, left + crop[1])
    pixels = image[view]
    pixels = _grey(pixels) if colourless else pixels
    pixels = _blurred(pixels, sigma) if blurred else pixels
    return (
        normalise(_pad(pixels, crop, mean_colour(normalisation).tolist()), normalisation),
        tuple(_pad(label[view], crop, IGNORED) for label in resized),
        _window(view, height, width, mirrored),
    )


def normalise(image: np.ndarray, normalisation: Normalisation = IMAGENET) -> np.ndarray:
    """[H, W, 3] RGB, uint8 or float32 in [0, 1] → [3, H, W] float32, (image - mean) / deviation."""
    deviation = np.array(normalisation.deviation, dtype=np.float32)
    normalised = (_as_float(image) - mean_colour(normalisation)) / deviation
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def denormalise(image: np.ndarray, normalisation: Normalisation = IMAGENET) -> np.ndarray:
    """[3, H, W] float32 normalised → [H, W, 3] float32 RGB in [0, 1]."""
    deviation = np.array(normalisation.deviation, dtype=np.float32)
    return image.transpose(1, 2, 0) * deviation + mean_colour(normalisation)


def mean_colour(normalisation: Normalisation) -> np.ndarray:
    """[3] float32, RGB in [0, 1]: what is 0 once it is normalised."""
    return np.array(normalisation.mean, dtype=np.float32)


def _grey(image: np.ndarray) -> np.ndarray:
    return np.repeat((image @ GREY)[..., None], 3, axis=-1)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """By the 5×5 kernel exp(-(x² + y²) / σ²), which is a product of the same along each axis."""
    line = np.exp(-(np.arange(-2, 3) ** 2) / sigma**2)
    line /= line.sum()
    return cv2.sepFilter2D(image, -1, line, line)


def _window(view: tuple[slice, slice], height: int, width: int, mirrored: bool) -> np.ndarray:
    """A view of an image that was scaled to height × width, in shares of the unmirrored image's sides."""
    rows, columns = view
    left, right = columns.start / width, columns.stop / width
    if mirrored:
        left, right = 1 - left, 1 - right
    return np.array([rows.start / height, left, rows.stop / height, right], dtype=np.float32)


def _swapped(label: np.ndarray, swaps: Sequence[tuple[int, int]]) -> np.ndarray:
    if not swaps:
        return label
    classes = np.arange(np.iinfo(label.dtype).max + 1, dtype=label.dtype)
    for one, other in swaps:
        classes[[one, other]] = other, one
    return classes[label]


def _as_float(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image


def _resize(array: np.ndarray, height: int, width: int) -> np.ndarray:
    # Between two classes there is no class.
    method = cv2.INTER_LINEAR if array.ndim == 3 else cv2.INTER_NEAREST
    return cv2.resize(array, (width, height), interpolation=method)


def _pad(array: np.ndarray, crop: tuple[int, int], value: float | Sequence[float]) -> np.ndarray:
    bottom, right = crop[0] - array.shape[0], crop[1] - array.shape[1]
    return cv2.copyMakeBorder(array, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=value)
