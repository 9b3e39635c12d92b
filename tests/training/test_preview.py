"""The image of what the network sees and says: crop, weak labels, segments, prediction."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from spml_dist.config import Config, load
from spml_dist.data.stream.augment import normalise
from spml_dist.drawing import contact_sheet, overlay
from spml_dist.drawing.contact_sheet import Card
from spml_dist.records import IGNORED, UNLABELLED, Batch
from spml_dist.training import preview
from tests.conftest import SMALL

CLASSES = ["ground", "cat", "dog"]
VIEWS = ["crop", "weak labels", "segments", "prediction"]
SIDE, GRID = 32, 8
IMAGES = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture
def batch() -> Batch:
    """Three crops: a labelled row, the rest unlabelled; the second is padded on the right."""
    semantic = np.full((3, SIDE, SIDE), UNLABELLED, np.uint8)
    semantic[:, 4] = [[1], [2], [0]]
    semantic[1, :, SIDE // 2 :] = IGNORED
    image = np.stack([normalise(image.astype(np.float32) / 255) for image in IMAGES])
    return Batch(
        keys=("a", "b", "c"),
        position=torch.arange(3),
        image=torch.from_numpy(image),
        semantic=torch.from_numpy(semantic),
        regions=torch.zeros(3, SIDE, SIDE, dtype=torch.int32),
        tags=torch.zeros(3, 3, dtype=torch.bool),
        tags_known=torch.ones(3, dtype=torch.bool),
        window=torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(3, 4),
        epoch=0,
    )


@pytest.fixture
def raw() -> torch.Tensor:
    return torch.randn(3, 5, GRID, GRID, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def logits() -> torch.Tensor:
    """Every pixel is a dog."""
    return torch.zeros(3, 3, GRID, GRID).index_fill(1, torch.tensor([2]), 5.0)


def config(shown: int) -> Config:
    return load(SMALL, ["segments.grid=[2, 2]", "stream.crop=32", f"tracking.previews={shown}"])


@pytest.mark.parametrize(("asked", "rows"), [(1, 1), (2, 2), (8, 3)])
def test_as_many_rows_as_asked_for_and_as_there_are_images(batch, raw, logits, tmp_path, asked, rows):
    path = tmp_path / "previews" / "step_000100.png"
    preview.write(path, raw, logits, batch, config(asked), CLASSES, 0)
    views = [(caption, np.zeros((SIDE, SIDE, 3), np.uint8)) for caption in VIEWS]
    expected = contact_sheet.sheet("quickstart", [Card("a", views)] * rows, [("ground", (0, 0, 0))])
    assert cv2.imread(str(path)).shape == expected.shape
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_every_column_shows_what_its_title_says(batch, raw, logits, tmp_path: Path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        contact_sheet, "sheet", lambda _, cards, legend: shown.extend(cards) or np.zeros((9, 9, 3), np.uint8)
    )
    preview.write(tmp_path / "p.png", raw, logits, batch, config(3), CLASSES, 0)
    colours = overlay.palette(3, 0)
    assert [card.title for card in shown] == ["a", "b", "c"]
    for number, card in enumerate(shown):
        assert [caption for caption, _ in card.views] == VIEWS
        crop, weak, segments, prediction = (view for _, view in card.views)
        labels = batch.semantic[number].numpy()
        np.testing.assert_allclose(crop, IMAGES[number], atol=1)
        np.testing.assert_array_equal(weak, overlay.overlay(crop, labels, colours))
        assert (segments != crop).any()
        dogs = np.where(labels == IGNORED, IGNORED, 2)
        np.testing.assert_array_equal(prediction, overlay.overlay(crop, dogs, colours))


def test_segments_are_numbered_across_the_batch_and_ignored_pixels_have_none(batch, raw):
    numbers = preview._segment_map(raw, batch, config(3))
    assert numbers.shape == (3, GRID, GRID)
    assert (numbers[1, :, GRID // 2 :] == -1).all()
    assert (numbers[1, :, : GRID // 2] >= 0).all() and (numbers[[0, 2]] >= 0).all()
    assert numbers[0].max() < numbers[1, :, : GRID // 2].min()
    assert numbers[1].max() < numbers[2].min()


def test_embeddings_of_half_precision_are_fine(batch, raw, logits, tmp_path: Path):
    preview.write(tmp_path / "p.png", raw.bfloat16(), logits.bfloat16(), batch, config(2), CLASSES, None)
    assert cv2.imread(str(tmp_path / "p.png")) is not None
