"""The exported network: two files, and the way back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from spml_dist.config import load as load_config
from spml_dist.config.models import ModelConfig
from spml_dist.errors import ConfigError, RunError
from spml_dist.model import export
from spml_dist.model.segmenter import Segmenter, build
from spml_dist.records import IMAGENET, Normalisation

CLASSES = ["nothing", "cat", "dög"]


@pytest.fixture(scope="module")
def config():
    quickstart = Path(__file__).parents[1] / "small.yaml"
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


OLD = Path(__file__).parents[1] / "fixtures" / "v1" / "runs" / "global" / "export"
SHAPES = ("backbone", "feature_level", "dilations", "embedding_dim")
"""settings of the fixture that are not the defaults and that the weights' names and shapes depend on"""


def altered(tmp_path: Path, change) -> Path:
    folder = shutil.copytree(OLD, tmp_path / "export")
    info = json.loads((folder / "model.json").read_text())
    change(info)
    (folder / "model.json").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize("key", sorted(set(ModelConfig.model_fields) - set(SHAPES)))
def test_an_old_export_opens_whichever_setting_its_release_did_not_know(key, tmp_path):
    loaded, _ = export.load(altered(tmp_path, lambda info: info["model"].pop(key, None)))
    whole, _ = export.load(OLD)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in whole.state_dict().items())
    if key != "output_stride":  # a file without one is of no release
        images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        assert all(map(torch.equal, loaded(images), whole(images)))


@pytest.mark.parametrize("key", [key for key in SHAPES if key != "backbone"])
def test_weights_of_another_network_are_one_line(key, tmp_path):
    with pytest.raises(RunError, match=r"model\.safetensors does not fit") as caught:
        export.load(altered(tmp_path, lambda info: info["model"].pop(key)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["classes", "model", "step", "background", "version"])
def test_an_export_without_what_every_release_writes_is_one_line(key, tmp_path):
    with pytest.raises(RunError, match=f"model.json (lacks {key}|has an unknown version)"):
        export.load(altered(tmp_path, lambda info: info.pop(key)))


def test_a_setting_of_a_later_release_is_named(tmp_path):
    folder = altered(tmp_path, lambda info: info["model"].update(attention=3))
    with pytest.raises(ConfigError, match=r"model.attention at .*model.json is not a configuration key"):
        export.load(folder)
