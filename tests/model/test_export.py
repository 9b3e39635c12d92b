"""The exported network: two files, and the way back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from spml_dist.config import load as load_config
from spml_dist.errors import RunError
from spml_dist.model import export
from spml_dist.model.segmenter import Segmenter, build
from spml_dist.records import IMAGENET, Normalisation

CLASSES = ["nothing", "cat", "dög"]


@pytest.fixture(scope="module")
def config():
    quickstart = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
    return load_config(quickstart, ["model.dilations=[1,2]", "model.embedding_dim=8"]).model


@pytest.fixture(scope="module")
def model(config) -> Segmenter:
    """A network whose running statistics have seen something."""
    model = build(config, len(CLASSES), seed=5)
    model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), [1, 2])
    return model


@pytest.fixture
def folder(tmp_path, model, config) -> Path:
    export.save(model.state_dict(), tmp_path / "export", config, CLASSES, 0, 400)
    return tmp_path / "export"


def test_what_is_loaded_is_what_was_saved(folder, model):
    loaded, info = export.load(folder)
    assert (info["classes"], info["background"], info["step"]) == (CLASSES, 0, 400)
    assert not loaded.training
    images = torch.randn(1, 3, 32, 32)
    for ours, theirs in zip(loaded(images), model.eval()(images), strict=True):
        assert torch.equal(ours, theirs)
    state = loaded.state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_the_normalisation_goes_with_the_network(folder, tmp_path, model, config):
    """Exports of earlier releases say nothing of it and were made with ImageNet's."""
    own = Normalisation((0.5, 0.25, 0.125), (0.1, 0.2, 0.3))
    export.save(model.state_dict(), tmp_path / "own", config, CLASSES, 0, 400, normalisation=own)
    assert export.load(tmp_path / "own")[0].normalisation == own
    info = json.loads((folder / "model.json").read_text())
    assert (info.pop("mean"), info.pop("deviation")) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    (folder / "model.json").write_text(json.dumps(info))
    assert export.load(folder)[0].normalisation == IMAGENET


def test_two_files_and_nothing_else(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.safetensors"]
    assert json.loads((folder / "model.json").read_text())["version"] == 1


def test_saving_again_replaces(folder, model, config):
    export.save(model.state_dict(), folder, config, CLASSES, None, 401)
    _, info = export.load(folder)
    assert (info["step"], info["background"]) == (401, None)


def test_the_weights_it_started_from_are_not_needed_again(tmp_path, model, config):
    started = config.model_copy(update={"weights": "/nowhere/weights.pt"})
    export.save(model.state_dict(), tmp_path, started, CLASSES, 0, 1)
    assert export.load(tmp_path)[1]["model"]["weights"] == "/nowhere/weights.pt"


@pytest.mark.parametrize("damage", ["absent", "no weights", "torn weights", "torn json"])
def test_a_folder_without_a_whole_model_is_an_error(folder, damage):
    match damage:
        case "absent":
            folder = folder / "elsewhere"
        case "no weights":
            (folder / "model.safetensors").unlink()
        case "torn weights":
            weights = folder / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:100])
        case "torn json":
            (folder / "model.json").write_text('{"version": 1, ')
    with pytest.raises(RunError, match="holds no exported model"):
        export.load(folder)


def test_a_newer_version_is_refused(folder):
    info = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(info | {"version": 2}))
    with pytest.raises(RunError, match="version"):
        export.load(folder)
