"""Exports of label tools, laid out as each tool does, packed by the commands of docs/recipes.md."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from spml_dist.cli import main
from spml_dist.data.format.verify import verify
from spml_dist.data.recipes.coco import open_coco
from tests.data.conftest import HEIGHT, WIDTH
from tests.data.conftest import image as random_image

EXPORTS = Path(__file__).parent / "fixtures" / "tools"
RECIPES = Path(__file__).parents[3] / "docs" / "recipes.md"

LAYOUT = {
    "cvat": ("annotations/instances_default.json", "images/default"),
    "label_studio": ("result.json", "."),
    "labelme": ("dataset.json", "images"),
    "supervisely": ("ds0/annotations/instances.json", "ds0/images"),
    "roboflow": ("train/_annotations.coco.json", "train"),
}
"""where the file of annotations lies in each tool's export, and what its file names start from"""
BOXES = {
    "cvat": [(4, 6, 24, 18), (28, 18, 40, 30), (2, 3, 8, 8)],
    "label_studio": [(4, 6, 24, 18), (28, 18, 40, 30), (4, 6, 24, 18)],
    "labelme": [(4, 6, 24, 18), (10, 5, 30, 25)],
    "roboflow": [(4, 6, 24, 18), (28, 18, 40, 30), (10, 5, 30, 25)],
}
CLASSES = {"roboflow": ("background", "pets", "cat", "dog")}


def commands(tool: str) -> list[list[str]]:
    (block,) = re.findall(rf"```sh\n# {tool}\n(.*?)```", RECIPES.read_text(encoding="utf-8"), re.DOTALL)
    return [shlex.split(line) for line in block.splitlines()]


def unpack(tool: str, folder: Path) -> None:
    """Write the export as its zip unpacks."""
    text = (EXPORTS / f"{tool}.json").read_text(encoding="utf-8")
    file, below = LAYOUT[tool]
    for seed, image in enumerate(json.loads(text)["images"]):
        path = folder / below / image["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_image(seed)).save(path)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("tool", LAYOUT)
def test_an_export_is_packed_by_the_commands_of_the_docs(tool, tmp_path, monkeypatch):
    unpack(tool, tmp_path)
    monkeypatch.chdir(tmp_path)
    for words in commands(tool):
        if words[0] == "spml-dist":
            assert main(words[1:]) == 0
        else:
            subprocess.run(words, check=True, timeout=60)
    assert verify("data/mine/train")["problems"] == [] and not Path("data/mine/train/rejected.jsonl").exists()
    recipe = open_coco(tmp_path, "train", "masks" if tool == "supervisely" else "boxes")
    samples = list(recipe.samples())
    assert recipe.classes == CLASSES.get(tool, ("background", "cat", "dog"))
    assert {recipe.classes[tag] for sample in samples for tag in sample.tags} == {"cat", "dog"}
    assert all(sample.image.shape == (HEIGHT, WIDTH, 3) for sample in samples)
    if tool in BOXES:
        assert [box[1:] for sample in samples for box in sample.boxes] == BOXES[tool]
    else:
        assert (samples[0].semantic[6:18, 4:24] == 1).all() and (samples[1].semantic[5:25, 10:30] == 2).all()
