"""Surfaces of the generated scenes. Each varies in colour, scale and direction from object to object, and
shares its colours with surfaces of other classes: what tells a class is its pattern."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

Texture = Callable[[Generator, np.ndarray, np.ndarray], np.ndarray]
"""(random numbers, x, y) -> [H, W, 3] float RGB in 0..1; x and y are [H, W], turned and centred on the
object, in 160ths of the image's side"""


def ground(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Soft patches of two dull tones under fine grain or streaks."""
    hue = rng.choice([0.09, 0.13, 0.22, 0.58])
    first = _colour(rng, hue, (0.08, 0.32), (0.5, 0.78))
    second = first * rng.uniform(0.7, 0.85)
    streak = rng.choice([1, 1, 5])
    grain = _noise(rng, x.shape, 1) * 0.6 + _noise(rng, x.shape, 2, streak) * 0.4
    return _mix(first, second, _noise(rng, x.shape, 28)) + 0.1 * (grain[..., None] - 0.5)


def wave(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Curved crests."""
    bend = rng.uniform(2, 4) * np.sin(2 * np.pi * x / rng.uniform(18, 30))
    height = 0.5 + 0.5 * np.sin(2 * np.pi * (y + bend) / rng.uniform(8, 12))
    deep = _colour(rng, rng.uniform(0.48, 0.64), (0.45, 0.8), (0.35, 0.6))
    crest = _colour(rng, rng.uniform(0.48, 0.6), (0.1, 0.35), (0.75, 0.95))
    return _mix(deep, crest, height**2)


def sail(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Straight stripes."""
    stripe = _edge(np.sin(2 * np.pi * x / rng.uniform(9, 14)) + rng.uniform(-0.3, 0.3))
    cloth = _colour(rng, rng.uniform(0.08, 0.16), (0.03, 0.2), (0.8, 0.97))
    return _mix(cloth, _colour(rng, rng.uniform(0, 1), (0.5, 0.85), (0.35, 0.8)), stripe)


def buoy(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rings around the middle."""
    ring = _edge(np.sin(2 * np.pi * np.hypot(x, y * rng.uniform(0.9, 1.3)) / rng.uniform(9, 14)))
    paint = _colour(rng, rng.choice([0.0, 0.03, 0.13, 0.6]) + rng.uniform(0, 0.04), (0.6, 0.9), (0.55, 0.9))
    return _mix(paint, _colour(rng, 0.1, (0.0, 0.2), (0.75, 0.95)), ring)


def wall(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bricks in a running bond."""
    height = rng.uniform(6, 8.5)
    row = np.floor(y / height)
    column = np.floor((x + (row % 2) * height) / (2 * height))
    across, along = y / height % 1, (x + (row % 2) * height) / (2 * height) % 1
    brick = _colour(rng, rng.uniform(0.0, 0.1), (0.3, 0.7), (0.45, 0.75))
    tone = 0.8 + 0.4 * _cells(rng, row, column)
    joint = (across < 0.17) | (along < 0.09)
    mortar = _colour(rng, 0.1, (0.05, 0.2), (0.6, 0.9))
    return np.where(joint[..., None], mortar, brick * tone[..., None])


def paving(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A checkerboard of slabs."""
    side = rng.uniform(6.5, 9.5)
    row, column = np.floor(y / side), np.floor(x / side)
    light = _colour(rng, rng.choice([0.08, 0.12, 0.58]), (0.03, 0.25), (0.7, 0.92))
    slabs = _mix(light, light * rng.uniform(0.4, 0.6), (row + column) % 2)
    return slabs * (0.88 + 0.24 * _cells(rng, row, column))[..., None]


def bush(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Leaves: mottled at two scales."""
    leaves = _edge(
        4 * (0.55 * _noise(rng, x.shape, 5) + 0.45 * _noise(rng, x.shape, 3) - rng.uniform(0.45, 0.55))
    )
    dark = _colour(rng, rng.uniform(0.2, 0.42), (0.45, 0.8), (0.2, 0.38))
    light = _colour(rng, rng.uniform(0.16, 0.36), (0.35, 0.7), (0.45, 0.75))
    return _mix(dark, light, leaves)


def blossom(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Round dots in staggered rows."""
    pitch = rng.uniform(9, 12)
    row = np.floor(y / pitch)
    across, along = y / pitch % 1 - 0.5, (x / pitch + 0.5 * (row % 2)) % 1 - 0.5
    dot = _edge(6 * (rng.uniform(0.28, 0.36) - np.hypot(across, along)))
    leaf = _colour(rng, rng.uniform(0.2, 0.45), (0.35, 0.7), (0.25, 0.55))
    petal = _colour(rng, rng.choice([0.0, 0.13, 0.83, 0.92]), (0.15, 0.7), (0.8, 0.98))
    return _mix(leaf, petal, dot)


def tent(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A zigzag of two strong colours."""
    pitch = rng.uniform(12, 18)
    fold = np.abs(x / pitch % 1 - 0.5) * pitch
    zigzag = _edge(np.sin(2 * np.pi * (y + 1.2 * fold) / rng.uniform(9, 12)))
    first = rng.uniform(0, 1)
    light = _colour(rng, first, (0.4, 0.8), (0.7, 0.95))
    return _mix(light, _colour(rng, first + rng.uniform(0.3, 0.7), (0.45, 0.8), (0.25, 0.55)), zigzag)


def _colour(
    rng: Generator, hue: float, saturation: tuple[float, float], value: tuple[float, float]
) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(*saturation), rng.uniform(*value)))


def _mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return first + (second - first) * share[..., None]


def _edge(height: np.ndarray) -> np.ndarray:
    """A step at height 0, soft over about a pixel."""
    return 1 / (1 + np.exp(-6 * np.clip(height, -5, 5)))


def _noise(rng: Generator, shape: tuple[int, ...], grain: float, stretch: float = 1) -> np.ndarray:
    """Smooth noise in 0..1 whose grains measure `grain` 160ths of the side."""
    pixel = 160 / shape[0]
    cells = (max(2, round(shape[0] * pixel / grain)), max(2, round(shape[1] * pixel / (grain * stretch))))
    coarse = rng.random(cells)
    return np.clip(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), 0, 1)


def _cells(rng: Generator, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """A random tone in 0..1 for each brick or slab."""
    tones = rng.random((64, 64))
    return tones[row.astype(int) % 64, column.astype(int) % 64]
