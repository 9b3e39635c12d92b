"""Packs of a few images and a network that sees colours, as the tests of inference make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from spml_dist.labeling import network as networks
from spml_dist.labeling.network import TrainedSegmenter
from tests.inference.conftest import CLASSES, ColourNet, network, packed

__all__ = ["network", "packed"]


@pytest.fixture
def colours(monkeypatch, network: ColourNet) -> TrainedSegmenter:
    """A segmenter whose network reads classes off colours."""
    monkeypatch.setattr(networks, "_segmenter", lambda *_: network)
    return TrainedSegmenter(Path("export"), "", "cpu", len(CLASSES), None, None, (4, 6), 10, ())
