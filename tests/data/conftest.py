"""A small folder in the folder layout, and samples, for the tests of this room."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spml_dist.records import Sample

CLASSES = ("background", "cat", "dog")
HEIGHT, WIDTH = 30, 40
TRAIN = ("a", "b", "c", "d")
TEST = ("t",)


def image(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth random image, so that JPEGs of it stay close to it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def whole_mask(seed: int) -> np.ndarray:
    """Background above, one class below (cat for even seeds, dog for odd ones), an ignored column."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[HEIGHT // 2 :] = 1 + seed % 2
    mask[:, 5] = 255
    return mask


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """train: a, b, c annotated, d not at all; test: t, with a mask and nothing else."""
    root = tmp_path / "pets"
    for folder in ("images", "masks", "weak/lines"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(CLASSES)))
    (root / "meta.json").write_text(json.dumps({"classes": CLASSES, "background": 0, "ignore": 255}))
    (root / "train.txt").write_text("\n".join(TRAIN) + "\n")
    (root / "test.txt").write_text("\n".join(TEST) + "\n")
    for seed, image_id in enumerate(TRAIN + TEST):
        Image.fromarray(image(seed)).save(root / "images" / f"{image_id}.jpg", quality=90)
        if image_id != "d":
            Image.fromarray(whole_mask(seed)).save(root / "masks" / f"{image_id}.png")
        if image_id in "abc":
            lines = np.full((HEIGHT, WIDTH), 255, np.uint8)
            lines[20:22, 10:30] = 1 + seed % 2
            lines[3, 10:30] = 0
            Image.fromarray(lines).save(root / "weak/lines" / f"{image_id}.png")
    write_json(root / "weak/dots.json", {"a": [[1, 20, 20], [0, 20, 4]], "b": [[2, 10, 25]], "c": []})
    write_json(root / "weak/boxes.json", {"a": [[1, 0, 15, 40, 30]]})
    write_json(root / "weak/tags.json", {"a": [1], "b": [2, 0], "c": []})
    write_json(root / "weak/stats.json", {"images": 3})
    return root


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def samples(count: int, *, mask: bool = True) -> list[Sample]:
    """Samples as a recipe would make them, without a file."""
    made = []
    for seed in range(count):
        semantic = np.full((HEIGHT, WIDTH), 254, np.uint8)
        semantic[20:22, 10:30] = 1 + seed % 2
        semantic[:, 0] = 255
        regions = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 97 * 31).astype(np.uint16)
        made.append(
            Sample(
                key=f"image-{seed}",
                image=image(seed),
                semantic=semantic,
                regions=regions,
                tags=(1 + seed % 2,) if seed % 3 else None,
                mask=whole_mask(seed) if mask else None,
            )
        )
    return made
