"""The CAM classifier: what its maps and scores are, and its export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from spml_dist.config import load
from spml_dist.errors import RunError
from spml_dist.model import cam, export, segmenter

SMALL = Path(__file__).parents[1] / "small.yaml"
CLASSES = ["ground", "cat", "dog", "cow"]


@pytest.fixture(scope="module")
def config():
    return load(SMALL, ["model.embedding_dim=8", "model.frozen=[conv1]"]).model


@pytest.fixture
def model(config) -> cam.Cam:
    return cam.build(config, len(CLASSES), seed=3).eval()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 71), (8, 100)])
def test_a_map_has_a_cell_for_every_stride_and_a_score_is_its_mean(model, height: int, width: int):
    maps, scores = model(torch.randn(2, 3, height, width))
    assert maps.shape == (2, 4, -(-height // 8), -(-width // 8))
    torch.testing.assert_close(scores, maps.flatten(2).mean(dim=2))


def test_it_is_a_linear_classifier_of_pooled_features_without_bias(model):
    images = torch.randn(2, 3, 64, 48)
    pooled = cam.backbone.features(model.backbone, images).mean(dim=(2, 3))
    torch.testing.assert_close(model(images)[1], pooled @ model.classify.weight.flatten(1).T)
    assert model.classify.bias is None


def test_no_image_gives_no_score_and_every_weight_a_gradient(model):
    maps, scores = model.train()(torch.zeros(0, 3, 64, 64))
    assert scores.shape == (0, 4)
    (scores.sum() + maps.sum()).backward()
    assert all(not p.grad.any() for p in model.parameters() if p.requires_grad)


def test_the_seed_decides_and_the_frozen_prefix_is_frozen(config, model):
    again, other = cam.build(config, 4, seed=3), cam.build(config, 4, seed=4)
    assert torch.equal(model.classify.weight, again.classify.weight)
    assert not torch.equal(model.classify.weight, other.classify.weight)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert (
        frozen
        == {name for name, _ in model.named_parameters() if name.startswith("backbone.conv1.")}
        != set()
    )


def test_what_is_loaded_is_what_was_saved(tmp_path, model, config):
    export.save(model.state_dict(), tmp_path, config, CLASSES, 0, 7, "cam")
    loaded, info = export.load(tmp_path, "cam")
    assert (info["network"], info["step"], info["background"]) == ("cam", 7, 0)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(images)[0], model(images)[0])


@pytest.mark.parametrize(
    ("held", "wanted", "remedy"), [("cam", "segmenter", "dist train"), ("segmenter", "cam", "cam train")]
)
def test_the_other_network_is_refused_in_one_line(tmp_path, config, held: str, wanted: str, remedy: str):
    build = cam.build if held == "cam" else segmenter.build
    export.save(build(config, 4, seed=0).state_dict(), tmp_path, config, CLASSES, 0, 7, held)
    with pytest.raises(RunError, match=rf"model.json: .* {wanted} \(got {held}\); .*{remedy}"):
        export.load(tmp_path, wanted)


def test_a_file_that_does_not_say_is_a_segmenter(tmp_path, config):
    network = segmenter.build(config, 4, seed=0)
    export.save(network.state_dict(), tmp_path, config, CLASSES, 0, 7)
    info = json.loads((tmp_path / "model.json").read_text())
    assert info.pop("network") == "segmenter"
    (tmp_path / "model.json").write_text(json.dumps(info))
    assert isinstance(export.load(tmp_path)[0], segmenter.Segmenter)
