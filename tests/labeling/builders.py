"""Samples for tests of labelers."""

from __future__ import annotations

import numpy as np

from spml_dist.records import UNLABELLED, Sample


def sample(shape: tuple[int, int], **fields) -> Sample:
    """A black image without any label, but for the given fields."""
    empty = {
        "key": "a",
        "image": np.zeros((*shape, 3), np.uint8),
        "semantic": np.full(shape, UNLABELLED, np.uint8),
        "regions": np.zeros(shape, np.uint16),
        "tags": None,
    }
    return Sample(**empty | fields)
