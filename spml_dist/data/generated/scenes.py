"""Generated scenes: irregular textured shapes on varied ground, lit, shaded, overlapping, scribbled on."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from spml_dist.data.annotations.regions import oversegment
from spml_dist.data.generated import textures
from spml_dist.data.generated.textures import Texture
from spml_dist.records import UNLABELLED, Sample

CLASSES = ("ground", "wave", "sail", "buoy", "wall", "paving", "bush", "blossom", "tent")
BACKGROUND = 0
_THEMES = ((1, 2, 3), (4, 5, 6), (6, 7, 8))
"""harbour, town, meadow: classes that occur together; bushes grow in two of them"""
_GUEST = 0.08
"""share of the scenes with a class of another theme"""
_SMALLEST = 0.012
"""of the image: no object shows less"""
_SCRIBBLED = 0.026
"""of every object's area; strokes that bend cover a little more"""
_SHORTEST = 6
"""pixels of scribble on even the smallest object"""


@dataclass(frozen=True)
class _Look:
    texture: Texture
    corners: tuple[int, int]
    """fewest and most corners of the outline; (0, 0) = a rounded blob"""
    aspect: tuple[float, float]
    turn: float
    """largest angle by which it is turned, radians"""


_LOOKS = (
    _Look(textures.ground, (4, 4), (1, 1), 0.3),
    _Look(textures.wave, (0, 0), (1.3, 2.2), 0.4),
    _Look(textures.sail, (3, 3), (0.6, 1.0), 0.5),
    _Look(textures.buoy, (0, 0), (0.9, 1.2), 3.2),
    _Look(textures.wall, (4, 5), (1.0, 1.8), 0.3),
    _Look(textures.paving, (4, 7), (1.0, 1.7), 0.8),
    _Look(textures.bush, (0, 0), (0.9, 1.4), 3.2),
    _Look(textures.blossom, (0, 0), (1.0, 1.7), 3.2),
    _Look(textures.tent, (3, 5), (1.0, 1.5), 0.4),
)


def scene(seed: int, split: int, index: int, key: str, size: int) -> Sample:
    """One scene of size×size pixels, drawn from (seed, split, index) alone: image, scribbles of 3 to 5 % of
    the pixels, contour regions, tags, and the whole mask."""
    rng = np.random.default_rng([seed, split, index])
    canvas = _textured(rng, BACKGROUND, (size / 2, size / 2), size)
    owner = np.zeros((size, size), np.uint8)
    labels = [BACKGROUND]
    for label in _cast(rng):
        placed = _place(rng, label, owner, len(labels))
        if placed is not None:
            owner, alpha, centre = placed
            canvas = _painted(rng, canvas, _textured(rng, label, centre, size), alpha)
            labels.append(label)
    mask = np.array(labels, np.uint8)[owner]
    image = _lit(rng, canvas)
    return Sample(
        key=key,
        image=image,
        semantic=_scribbled(rng, owner, mask),
        regions=oversegment(image),
        tags=tuple(sorted(set(labels) - {BACKGROUND})),
        mask=mask,
        kinds=("scribbles",),
    )


def _cast(rng: Generator) -> list[int]:
    """Classes of the objects to place, back to front: two or three of a theme, some twice."""
    theme = _THEMES[rng.integers(len(_THEMES))]
    labels = list(rng.choice(theme, size=rng.integers(2, 4), replace=False))
    if rng.random() < _GUEST:
        labels.append(rng.integers(1, len(CLASSES)))
    again = list(rng.choice(labels, size=rng.integers(1, 3)))
    return [int(label) for label in rng.permutation(labels + again)]


def _textured(rng: Generator, label: int, centre: tuple[float, float], size: int) -> np.ndarray:
    look = _LOOKS[label]
    angle = rng.uniform(-look.turn, look.turn)
    y, x = (np.mgrid[:size, :size] - np.reshape(centre, (2, 1, 1))) * (160 / size)
    return look.texture(rng, x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle))


def _place(
    rng: Generator, label: int, owner: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]] | None:
    """Where an object fits so that all before it stay visible: (owner, coverage, (y, x)), or None."""
    size = len(owner)
    for _ in range(20):
        centre = rng.uniform(0.12 * size, 0.88 * size, 2)
        alpha = _coverage(_outline(rng, _LOOKS[label]) * rng.uniform(0.15, 0.26) * size + centre, size)
        after = np.where(alpha > 0.5, np.uint8(number), owner)
        if np.bincount(after.ravel(), minlength=number + 1).min() >= _SMALLEST * size**2:
            return after, alpha, (centre[0], centre[1])
    return None


def _outline(rng: Generator, look: _Look) -> np.ndarray:
    """[n, 2] corners (y, x) of an irregular outline of about unit radius."""
    if look.corners[1]:
        corners = rng.integers(look.corners[0], look.corners[1] + 1)
        angle = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.18, 0.18, corners)) / corners + rng.uniform(
            0, 6.3
        )
        radius = rng.uniform(0.9, 1.3, corners)
    else:
        angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        bumps = rng.uniform(0, 0.12, 4)[:, None] * np.cos(
            np.outer(np.arange(2, 6), angle) + rng.uniform(0, 6.3, (4, 1))
        )
        radius = 1 + bumps.sum(0)
    stretch = np.sqrt(rng.uniform(*look.aspect))
    tilt = rng.uniform(-look.turn, look.turn)
    y, x = radius * np.sin(angle) / stretch, radius * np.cos(angle) * stretch
    return np.stack([y * np.cos(tilt) + x * np.sin(tilt), x * np.cos(tilt) - y * np.sin(tilt)], axis=1)


def _coverage(corners: np.ndarray, size: int, fine: int = 4) -> np.ndarray:
    """[H, W] float: the share of each pixel inside the outline."""
    drawn = np.zeros((size * fine, size * fine), np.uint8)
    cv2.fillPoly(drawn, [np.rint(corners[:, ::-1] * fine).astype(np.int32)], 255)
    return cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA) / 255


def _painted(rng: Generator, canvas: np.ndarray, surface: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The surface laid over the canvas: rounded at its rim, lit from one side, with a soft shadow."""
    unit = len(alpha) / 160
    depth = cv2.distanceTransform((alpha > 0.5).astype(np.uint8), cv2.DIST_L2, 5) / unit
    light = rng.uniform(0.8, 1.1) * (0.7 + 0.3 * np.clip(depth / 5, 0, 1)) * _slope(rng, len(alpha), 0.15)
    down, right = np.rint(rng.uniform(2, 5, 2) * unit).astype(int)
    cast = np.pad(alpha, ((down, 0), (right, 0)))[: len(alpha), : len(alpha)]
    shadow = cv2.GaussianBlur(cast, (0, 0), 3 * unit)
    under = canvas * (1 - 0.45 * shadow[..., None])
    return under + (surface * light[..., None] - under) * alpha[..., None]


def _lit(rng: Generator, canvas: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8: the canvas under tinted light that falls off to one side, with the sensor's noise."""
    light = _slope(rng, len(canvas), 0.2)[..., None] * rng.uniform(0.85, 1.12) * rng.uniform(0.93, 1.07, 3)
    noise = rng.normal(0, rng.uniform(0.01, 0.035), canvas.shape)
    return (np.clip(canvas * light + noise, 0, 1) * 255).astype(np.uint8)


def _slope(rng: Generator, size: int, strength: float) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] / (size / 2) - 1
    return 1 + strength * (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(2)


def _scribbled(rng: Generator, owner: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[H, W] uint8: strokes 3 pixels wide inside every object and the ground; 254 elsewhere."""
    semantic = np.full(owner.shape, UNLABELLED, np.uint8)
    for number in range(owner.max() + 1):
        visible = owner == number
        drawn = np.zeros(owner.shape, np.uint8)
        left = max(_SCRIBBLED * visible.sum() / 3, _SHORTEST)
        while left > 0:
            stroke = _stroke(rng, visible, min(left, 70))
            cv2.polylines(drawn, [np.rint(stroke[:, ::-1]).astype(np.int32)], False, 1, thickness=3)
            left -= max(3 * len(stroke), 6)
        semantic[visible & (drawn > 0)] = mask[visible][0]
    return semantic


def _stroke(rng: Generator, visible: np.ndarray, length: float, step: float = 3) -> np.ndarray:
    """[n, 2] points (y, x) of a wandering line that stays away from the outline."""
    depth = cv2.distanceTransform(np.pad(visible.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    inside = depth >= min(4, 0.7 * depth.max())
    points = [np.argwhere(inside)[rng.integers(inside.sum())].astype(float)]
    heading = rng.uniform(0, 2 * np.pi)
    for _ in range(int(length / step)):
        for turn in (0.3, 0.6, 1.0, 1.5, 2.2):
            angle = heading + rng.normal(0, turn)
            after = points[-1] + step * np.array([np.sin(angle), np.cos(angle)])
            y, x = np.clip(np.rint(after).astype(int), 0, len(visible) - 1)
            if inside[y, x]:
                points.append(after)
                heading = angle
                break
    return np.array([points[0], *points])  # a line of one point would not be drawn
