"""Scores of different classes made comparable before the largest wins."""

from __future__ import annotations

import numpy as np


def rescale(scores: np.ndarray, present: np.ndarray, floor: float = 0.15) -> np.ndarray:
    """Each present class's map over max(its maximum, floor); the others as they are (the SPML release).

    scores: [K, H, W] float, such as shares of neighbours' votes averaged over views; present: [K] bool, the
    classes of the image's weak labels. The floor keeps a class that hardly got a vote from filling it.
    """
    highest = scores.max(axis=(1, 2), initial=-np.inf)
    divisor = np.where(present, np.maximum(highest, floor), 1).astype(scores.dtype)
    return scores / divisor[:, None, None]
