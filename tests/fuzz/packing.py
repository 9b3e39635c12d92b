"""Pack whatever a reader makes of an input, and hold it to what every pack promises."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from spml_dist.data.format.keys import image_id_of
from spml_dist.data.format.members import decode
from spml_dist.data.format.verify import verify
from spml_dist.data.pack.pack_recipe import pack_recipe
from spml_dist.data.recipes.recipe import Recipe
from spml_dist.errors import SpmlError
from spml_dist.records import Sample

WIDTH, HEIGHT = 14, 10
LONGEST = 3000
"""letters of a line that somebody still reads"""


def draw_image(path: Path, seed: int = 0) -> None:
    """An image of WIDTH×HEIGHT."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def packed(open_recipe: Callable[[], Recipe], out: Path) -> tuple[Recipe, dict[str, Sample]] | None:
    """The recipe and the samples of its pack by image id, or None where it was refused in one line.

    Asserts that nothing but a SpmlError is raised, that the pack verifies, and that every image of the recipe
    is in it or rejected by name.
    """
    try:
        recipe = replace(open_recipe(), regions=_no_regions)
        pack_recipe(recipe, out, name="fuzz", shard_size=8)
    except SpmlError as error:
        _require_line(str(error))
        return None
    assert verify(out)["problems"] == []
    samples = {image_id_of(sample.key): sample for sample in _samples(out, len(recipe.classes))}
    rejected = _rejected(out)
    assert sorted([*samples, *rejected]) == sorted(recipe.ids)
    for text in rejected.values():
        _require_line(text)
    for note in recipe.notes:
        _require_line(" ".join(note.splitlines()))
    return recipe, samples


def _no_regions(image_id: str, image: np.ndarray) -> np.ndarray:
    return np.zeros(image.shape[:2], np.uint16)


def _require_line(text: str) -> None:
    assert text.strip() and len(text.splitlines()) == 1 and len(text) < LONGEST, text[:500]
    text.encode()


def _rejected(out: Path) -> dict[str, str]:
    path = out / "rejected.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return {each["image"]: each["reason"] for each in map(json.loads, filter(None, lines))}


def _samples(out: Path, num_classes: int) -> list[Sample]:
    found = []
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = [(entry.name.split(".", 1), tar.extractfile(entry).read()) for entry in tar]
        for key, pairs in groupby(members, key=lambda member: member[0][0]):
            found.append(decode(key, {name: content for (_, name), content in pairs}, num_classes))
    return found
