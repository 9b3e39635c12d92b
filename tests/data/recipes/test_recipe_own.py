"""The recipe that docs/recipes.md shows how to write."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spml_dist.cli import main
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.format.verify import verify
from spml_dist.errors import DataError
from tests.data.conftest import image, write_json

PAGE = Path(__file__).parents[3] / "docs" / "recipes.md"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = tmp_path / "strokes.py"
    path.write_text(source)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    (root / "photos").mkdir(parents=True)
    (root / "train.txt").write_text("a\nb\n")
    for seed, image_id in enumerate("ab"):
        Image.fromarray(image(seed)).save(root / f"photos/{image_id}.jpg")
    write_json(
        root / "strokes.json", {"a": [["cat", [[5, 5], [20, 5]]], ["background", [[5, 20], [20, 20]]]]}
    )
    return root


def test_the_example_of_the_page_packs_and_verifies(example, pets, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["strokes.py", str(pets), str(out)])
    runpy.run_path(str(example), run_name="__main__")
    manifest = read_manifest(out)
    assert (manifest.samples, manifest.counts.images_labelled) == (2, 1)
    assert manifest.counts.pixels_labelled == (3 * 18, 3 * 18, 0)
    assert verify(out)["problems"] == []


def test_the_example_names_mistakes(example, pets):
    open_strokes = runpy.run_path(str(example))["open_strokes"]
    assert np.unique(open_strokes(pets, "train").sample("b").semantic).tolist() == [254]
    write_json(pets / "strokes.json", {"a": [["yeti", [[1, 1]]]]})
    with pytest.raises(DataError, match=r"strokes\.json, image a: no class \(got yeti\)"):
        open_strokes(pets, "train").sample("a")
    with pytest.raises(DataError, match=r"test\.txt: cannot be read"):
        open_strokes(pets, "test")


def test_the_page_names_every_recipe(capsys):
    assert main(["pack", "--help"]) == 0
    recipes = re.findall(r"^    (\w+)\s", capsys.readouterr().out.split("RECIPE\n")[1], re.MULTILINE)
    assert {"voc2012", "coco", "densepose", "images", "folder", "sample"} <= set(recipes)
    assert set(recipes) == set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
