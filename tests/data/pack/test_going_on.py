"""What of an ended pack the next command takes over: all, or nothing if it would come out different."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spml_dist.cli import main
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.recipes.recipe import Recipe
from tests.data.annotations.test_contour_network import write_network
from tests.data.conftest import write_json


@pytest.fixture
def end_after_two(root: Path, tmp_path: Path, monkeypatch) -> Callable[..., list[str]]:
    """Ends a pack with the given options after two of its four tars; returns its words."""
    write_json(root / "weak/boxes.json", {image_id: [[1, 4, 15, 36, 30]] for image_id in "abcd"})
    words = ["pack", "folder", str(root), "--split", "train", "--labels", "lines,boxes"]
    words += ["--shard-size", "1", "--out", str(tmp_path / "out")]
    sample = Recipe.sample

    def ended(recipe, image_id):
        if image_id == "c":
            raise KeyboardInterrupt
        return sample(recipe, image_id)

    def end(*options: str) -> list[str]:
        with monkeypatch.context() as patched:
            patched.setattr(Recipe, "sample", ended)
            assert main([*words, *options]) == 130
        return [*words, *options]

    return end


def test_the_same_command_goes_on_wherever_its_file_of_kinds_lies(end_after_two, tmp_path, capsys):
    for name in ("kinds.json", "moved.json"):
        write_json(tmp_path / name, {"a": ["lines"], "b": ["boxes"]})
    words = end_after_two("--labels-from", str(tmp_path / "kinds.json"))
    assert main([*words, "--labels-from", str(tmp_path / "moved.json")]) == 0
    assert "2 of 4 tars are there already" in capsys.readouterr().err


def test_another_file_of_kinds_at_the_same_path_begins_anew(end_after_two, tmp_path, capsys):
    kinds = tmp_path / "kinds.json"
    write_json(kinds, {"a": ["lines"], "b": ["lines"]})
    words = end_after_two("--labels-from", str(kinds))
    write_json(kinds, {"a": ["boxes"], "b": ["boxes"]})
    assert main(words) == 0
    assert "there already" not in capsys.readouterr().err
    assert read_manifest(tmp_path / "out").counts.kinds == {"boxes": 2}


def test_another_network_at_the_same_path_begins_anew(end_after_two, tmp_path, capsys):
    network = write_network(tmp_path / "contours.onnx", np.full((1, 3), 0.01, np.float32))
    words = end_after_two("--regions", "ucm:9", "--contours", str(network))
    write_network(network, np.full((1, 3), -0.01, np.float32))
    assert main(words) == 0
    assert "there already" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "other",
    [
        ["--boxes", "geometry"],
        ["--point-radius", "5"],
        ["--labels-from", "kinds.json"],
    ],
    ids=lambda other: other[0],
)
def test_other_options_begin_anew(other, end_after_two, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "kinds.json", {"a": ["lines"]})
    words = end_after_two()
    assert main([*words, *other]) == 0
    assert "there already" not in capsys.readouterr().err
