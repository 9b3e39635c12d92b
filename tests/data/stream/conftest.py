"""Small packed folders."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spml_dist.data.pack.pack import pack
from spml_dist.records import IGNORED, UNLABELLED, Sample

CLASSES = ("sky", "sea", "sand", "rock")


def make_sample(number: int, height: int = 40, width: int = 52) -> Sample:
    """A smooth image with labels of every sort; every third has unknown tags."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:height, :width]
    waves = rows[..., None] * rng.uniform(1, 4, 3) + columns[..., None] * rng.uniform(1, 4, 3)
    semantic = rng.choice(np.array([*range(len(CLASSES)), UNLABELLED, IGNORED], np.uint8), (height, width))
    return Sample(
        key=f"beach-{number:03d}",
        image=(127 + 120 * np.sin(waves / 20)).astype(np.uint8),
        semantic=semantic,
        regions=(rows // 7 * 1000 + columns // 9).astype(np.uint16),
        tags=None if number % 3 == 2 else (0, number % len(CLASSES)) if number % len(CLASSES) else (),
        mask=np.where(semantic == UNLABELLED, 1, semantic).astype(np.uint8),
    )


def spoil(path: Path, *keys: str) -> None:
    """Zeros in the place of the images of some samples."""
    with tarfile.open(path) as file:
        spans = [(m.offset_data, m.size) for m in file if m.name.removesuffix(".jpg") in keys]
    with path.open("r+b") as file:
        for offset, size in spans:
            file.seek(offset)
            file.write(bytes(size))
    assert len(spans) == len(keys)


@pytest.fixture
def packed(tmp_path) -> Callable[..., Path]:
    """packed(count, shard_size, name) -> a folder with shards and manifest."""

    def make(count: int = 7, shard_size: int = 3, name: str = "beach") -> Path:
        folder = tmp_path / name
        beach = (make_sample(number) for number in range(count))
        pack(beach, folder, name, split="train", labels="toy", classes=CLASSES, shard_size=shard_size)
        return folder

    return make
