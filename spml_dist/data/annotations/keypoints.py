"""Keypoints: a Gaussian heat map around each says what is labelled, unknown and background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spml_dist.data.annotations.points import Point, nearest
from spml_dist.errors import ConfigError
from spml_dist.records import UNLABELLED

SIGMA = 0.03
"""of the image's diagonal: σ of the heat maps where nobody chose one"""


@dataclass(frozen=True)
class HeatMap:
    """A keypoint's heat map, exp(−d² ÷ 2σ²) at the distance d, and what it takes to be labelled."""

    sigma: float | None = None
    """σ in pixels; None = SIGMA of the image's diagonal"""
    high: float = 0.5
    """a pixel of at least this heat takes its keypoint's class: within 1.18 σ"""
    low: float = 0.02
    """a pixel of less heat than this is background: beyond 2.80 σ"""

    def __post_init__(self) -> None:
        if self.sigma is not None and not 0 < self.sigma < math.inf:
            raise ConfigError("keypoint sigma", self.sigma, "give pixels, more than 0")
        if not 0 <= self.low <= self.high <= 1 or self.high == 0:
            limits = f"low {self.low:g}, high {self.high:g}"
            raise ConfigError("heat of keypoints", limits, "keep 0 ≤ low ≤ high ≤ 1, and high above 0")


def heat_labels(
    points: Sequence[Point], shape: tuple[int, int], heat: HeatMap, background: int | None
) -> np.ndarray:
    """Labels of the pixels near keypoints, background far from all of them (SPML paper, appendix A.3).

    A pixel takes the class of its strongest keypoint (the earlier one of equals) where the heat is high, is
    background where it is low, and unlabelled between. Without a keypoint nothing is known of an image.

    points: (class, x, y) within the image. shape: (H, W). background: None = far pixels stay unlabelled.
    Returns [H, W] uint8: 0..K-1, or 254.
    """
    if not points:
        return np.full(shape, UNLABELLED, np.uint8)
    sigma = heat.sigma or SIGMA * math.hypot(*shape)
    # Comparing distances with the radius of each heat needs no exp a pixel, and equal heats stay equal.
    near, far = _reach(heat.high, sigma), _reach(heat.low, sigma)
    label, squared = nearest(points, shape, far)
    label[squared > near**2] = UNLABELLED
    if background is not None:
        label[squared > far**2] = background
    return label


def _reach(least: float, sigma: float) -> float:
    """Distance from a keypoint within which its heat is at least this, in pixels."""
    return sigma * math.sqrt(-2 * math.log(least)) if least else math.inf
