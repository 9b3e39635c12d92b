"""Contour strength from the image alone: colour and texture gradients at several scales, no weights.

As in Arbeláez, Maire, Fowlkes and Malik (Contour detection and hierarchical image segmentation, PAMI 2011),
a contour is where the two sides of a pixel differ, for some direction, in brightness, colour or texture.
Fine differences are Gaussian derivatives; coarse ones compare histograms of the two sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_ANGLES = np.arange(8, dtype=np.float32) * np.float32(np.pi / 8)
_BINS = {"brightness": 8, "green-red": 16, "blue-yellow": 16}
_RADII = (2, 8)
"""of the halves whose histograms are compared, in pixels of the image at half its size"""

# Logistic regression of what people marked as boundaries in the training split of BSDS500, on the square
# roots of the differences; those that did not help are left out.
_FINE_WEIGHTS = {"brightness": 0.55, "colour": 0.5}
_COARSE_WEIGHTS = {
    2: {"brightness": 1.6, "green-red": 0.13, "blue-yellow": 0.33, "texture": 3.0},
    8: {"brightness": 1.2, "green-red": 0.6, "blue-yellow": 0.8, "texture": 2.8},
}
_BIAS = -8.6
_SOFTNESS = 2.0
"""of the logistic curve: weak contours keep a strength that tells them from none at all"""


@dataclass(frozen=True)
class Contours:
    """How likely each pixel lies on a contour, and the direction across it."""

    strength: np.ndarray
    """[H, W] float32, 0..1"""
    across: np.ndarray
    """[H, W] float32, radians in 0..π from the x axis towards y (down), at right angles to the contour"""


def contours(image: np.ndarray) -> Contours:
    """Contours of an image by its colour and texture gradients.

    image: [H, W, 3] uint8 RGB. The same image gives the same contours.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    height, width = image.shape[:2]
    coarse = _coarse(lab)
    evidence = np.stack([cv2.resize(part, (width, height)) for part in coarse])
    evidence += _fine(lab)
    strongest = evidence.argmax(axis=0)
    best = np.take_along_axis(evidence, strongest[None], axis=0)[0]
    return Contours(1 / (1 + np.exp(-(best + _BIAS) / _SOFTNESS)), _ANGLES[strongest])


def _fine(lab: np.ndarray) -> np.ndarray:
    """Weighted roots of the derivatives of brightness (σ = 1) and colour (σ = 2), [8, H, W]."""
    brightness = _derivatives(lab[..., :1], 1.0)
    colour = _derivatives(lab[..., 1:], 2.0)
    return _FINE_WEIGHTS["brightness"] * np.sqrt(brightness) + _FINE_WEIGHTS["colour"] * np.sqrt(colour)


def _derivatives(channels: np.ndarray, sigma: float) -> np.ndarray:
    """Length of the derivative of some channels in each direction, times σ, [8, H, W]."""
    dx, dy = _gradient(channels, sigma)
    xx, xy, yy = ((a * b).sum(axis=-1) for a, b in ((dx, dx), (dx, dy), (dy, dy)))
    cos, sin = np.cos(_ANGLES)[:, None, None], np.sin(_ANGLES)[:, None, None]
    squared = cos * cos * xx + 2 * cos * sin * xy + sin * sin * yy
    return sigma * np.sqrt(np.maximum(squared, 0))


def _gradient(channels: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    smooth = cv2.GaussianBlur(channels, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    smooth = smooth.reshape(channels.shape)
    dx = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 32)
    dy = cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 32)
    return dx.reshape(channels.shape), dy.reshape(channels.shape)


def _coarse(lab: np.ndarray) -> np.ndarray:
    """Weighted roots of the differences between the histograms of two halves, at half the size, [8, h, w]."""
    half = tuple((side + 1) // 2 for side in lab.shape[1::-1])
    small = cv2.resize(lab, half, interpolation=cv2.INTER_AREA)
    texture = [cv2.resize(part, half, interpolation=cv2.INTER_AREA) for part in _texture(lab[..., 0])]
    spans = (small[..., 0] / 100, small[..., 1] / 160 + 0.5, small[..., 2] / 160 + 0.5)
    histograms = {
        name: _soft_bins(span, bins) for (name, bins), span in zip(_BINS.items(), spans, strict=True)
    }
    histograms["texture"] = np.stack(texture)
    return sum(
        weight * np.sqrt(_halves_differ(histograms[name], radius))
        for radius in _RADII
        for name, weight in _COARSE_WEIGHTS[radius].items()
    )


def _soft_bins(values: np.ndarray, bins: int) -> np.ndarray:
    """Values in 0..1 shared between their two nearest bins, [bins, h, w]."""
    position = np.clip(values, 0, 1) * (bins - 1)
    centres = np.arange(bins, dtype=np.float32)[:, None, None]
    return np.maximum(0, 1 - np.abs(position - centres))


def _texture(brightness: np.ndarray) -> np.ndarray:
    """Share of each of four directions in the local contrast, and of none, [5, H, W]."""
    dx, dy = _gradient(brightness, 1.0)
    contrast, direction = np.hypot(dx, dy), np.arctan2(dy, dx)
    angles = _ANGLES[::2, None, None]
    energy = contrast * (np.cos(2 * (direction - angles)) / 2 + 0.5) ** 2
    # A contrast of 4 (of 100) counts half: weaker ones are noise more often than texture.
    return np.concatenate([energy, np.full_like(contrast, 4.0)[None]]) / (contrast + 4.0)


def _halves_differ(histogram: np.ndarray, radius: int) -> np.ndarray:
    """Hellinger distance between the histograms of both sides of each pixel by direction, [8, h, w].

    A side is three Gaussian windows in a row along the contour; histogram: [bins, h, w].
    """
    reach = 2 * radius
    windows = np.stack([_padded_window(part, radius / 2, reach) for part in histogram])
    differences = [
        _side(windows, angle, radius, reach) - _side(windows, angle, -radius, reach) for angle in _ANGLES
    ]
    return np.stack([np.sqrt(np.einsum("bhw,bhw->hw", part, part)) for part in differences])


def _padded_window(channel: np.ndarray, sigma: float, reach: int) -> np.ndarray:
    padded = np.pad(channel / 3, reach, mode="symmetric")
    return cv2.GaussianBlur(padded, (0, 0), sigma)


def _side(windows: np.ndarray, angle: float, radius: int, reach: int) -> np.ndarray:
    """Root of the histogram on the side that `angle` points to, the other if radius < 0, [bins, h, w]."""
    height, width = windows.shape[1] - 2 * reach, windows.shape[2] - 2 * reach
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    parts = []
    for along in (-abs(radius), 0, abs(radius)):
        right = reach + round(0.6 * (radius * cos - along * sin))
        down = reach + round(0.6 * (radius * sin + along * cos))
        parts.append(windows[:, down : down + height, right : right + width])
    total = parts[0] + parts[1]
    total += parts[2]
    return np.sqrt(total, out=total)
