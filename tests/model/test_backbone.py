"""Backbones: convolutions and transformers, images of any size, weights by name. Nothing is fetched."""

from __future__ import annotations

import argparse
import math
from collections import OrderedDict
from functools import cache

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from spml_dist.errors import ConfigError
from spml_dist.model import backbone
from spml_dist.model.segmenter import Segmenter, build
from tests.model.test_segmenter import config

KINDS = {
    "DINOv2": ("vit_small_patch14_dinov2", 14, -1, 14),
    "ViT": ("test_vit", None, -1, 16),
    "Swin": ("swin_tiny_patch4_window7_224", None, 1, 8),
    "ConvNeXt": ("test_convnext", 8, -1, 8),
}
"""kind → (timm's name, model.output_stride, model.feature_level, stride of the map)"""


@cache
def network(kind: str, head: str = "deeplab") -> Segmenter:
    name, output_stride, level, _ = KINDS[kind]
    dilations = (1, 2) if head == "deeplab" else ()
    changes = {"backbone": name, "output_stride": output_stride, "feature_level": level}
    return build(config(**changes, head=head, dilations=dilations), num_classes=5, seed=0)


def random_images(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKindOfBackbone:
    def test_has_the_stride_that_was_asked_for(self, kind):
        net, stride = network(kind).backbone, KINDS[kind][-1]
        assert backbone.stride(net) == stride
        features = backbone.features(net, random_images(1, 3 * stride, 2 * stride))
        assert features.shape == (1, net.feature_info.channels()[-1], 3, 2)

    @pytest.mark.parametrize(("height", "width"), [(56, 64), (37, 90), (3, 5)])
    def test_embeds_images_of_any_size_on_a_quarter_grid(self, kind, height, width):
        with torch.no_grad():
            raw, logits = network(kind)(random_images(2, height, width), [1, 2])
        cells = (math.ceil(height / 4), math.ceil(width / 4))
        assert raw.shape == (2, 8, *cells) and logits.shape == (2, 5, *cells)
        assert raw.isfinite().all()

    def test_learns_in_every_parameter(self, kind):
        model = network(kind)
        model.zero_grad()
        raw, logits = model(random_images(2, 56, 56), [1, 2])
        (raw.square().sum() + logits.square().sum()).backward()
        lacking = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert not lacking
        assert all(p.grad.isfinite().all() for p in model.parameters())

    def test_draws_nothing_while_training(self, kind):
        """Stochastic depth would differ with the number of workers."""
        model = network(kind).train()
        torch.manual_seed(0)
        before = torch.get_rng_state()
        with torch.no_grad():
            first, second = (model.embed(random_images(2, 56, 56)) for _ in range(2))
        assert torch.equal(first, second)
        assert torch.equal(torch.get_rng_state(), before)

    def test_takes_no_images(self, kind):
        model = network(kind)
        model.zero_grad()
        raw, _ = model(random_images(0, 56, 56), [])
        assert raw.shape == (0, 8, 14, 14)
        raw.sum().backward()
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_a_transformer_under_the_pyramid_head():
    raw, _ = network("ViT", "pspnet")(random_images(1, 64, 48), [1])
    assert raw.shape == (1, 8, 16, 12)


@pytest.mark.parametrize("kind", ["ViT", "Swin", "ConvNeXt"])
def test_the_features_are_those_of_the_whole_timm_network(kind):
    """At the network's own image size; Swin's map comes with channels in the middle, as all others."""
    name, output_stride, level, _ = KINDS[kind]
    net = backbone.build(name, output_stride, level).net.eval()
    stride = {} if output_stride is None else {"output_stride": output_stride}
    whole = timm.create_model(name, **stride).eval()
    state = {backbone._plain(key): value for key, value in net.state_dict().items()}
    whole.load_state_dict(
        {key: state.get(backbone._plain(key), value) for key, value in whole.state_dict().items()}
    )
    images = random_images(1, *whole.default_cfg["input_size"][1:])
    with torch.no_grad():
        theirs = whole.forward_intermediates(images, norm=False, intermediates_only=True)[level]
        torch.testing.assert_close(backbone.features(net, images), theirs)


@pytest.mark.parametrize(
    ("name", "own", "wish"), [("test_vit", 16, 8), ("resnet18", 32, 14), ("vgg11", 32, 8)]
)
def test_a_stride_that_the_network_cannot_have_is_an_error(name, own, wish):
    message = rf"model\.output_stride \(got {wish}\); {name} has stride {own} .* set it to {own} or null"
    with pytest.raises(ConfigError, match=message):
        backbone.build(name, wish, -1)


def test_a_network_tied_to_one_image_size_is_an_error():
    with pytest.raises(ConfigError, match=r"model\.backbone \(got beit_.*does not take images of any size"):
        backbone.build("beit_base_patch16_224", None, -1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet1O1", "did you mean .*resnet101"),
        ("ResNet-50", "did you mean .*resnet50"),
        ("vit_smal_patch14_dinov2", "did you mean .*vit_small_patch14_dinov2"),
        ("?", r"timm\.list_models\(\)"),
    ],
)
def test_an_unknown_backbone_names_near_ones(name, message):
    with pytest.raises(ConfigError, match=rf"model\.backbone is not a timm model \(got .*\); {message}"):
        backbone.build(name, 8, -1)


def test_weights_that_nobody_has_published_are_an_error():
    message = r"model\.pretrained \(got True\); .*No pretrained weights.*name a file in model\.weights"
    with pytest.raises(ConfigError, match=message):
        backbone.build("mobilenetv2_035", None, -1, pretrained=True)


def test_weights_that_cannot_be_fetched_are_an_error(monkeypatch):
    create = timm.create_model

    def offline(*args, pretrained: bool = False, **options):
        if pretrained:
            raise ConnectionError("no route to host")
        return create(*args, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConfigError, match=r"model\.pretrained .*cannot fetch weights: no route to host"):
        backbone.build("resnet18", 8, -1, pretrained=True)


def loaded(weights, name: str = "resnet18", **options) -> nn.Module:
    return backbone.build(name, 8, -1, str(weights), **options).net


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Weights of a whole timm network, classifier included."""
    torch.manual_seed(1)
    return timm.create_model("resnet18").state_dict()


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_weights_are_loaded_by_name_and_the_classifier_is_left_alone(tmp_path, state, suffix):
    (save_file if suffix == "safetensors" else torch.save)(state, tmp_path / f"w.{suffix}")
    net = loaded(tmp_path / f"w.{suffix}").state_dict()
    assert set(net) == set(state) - {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, state[key]) for key, value in net.items())


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_weights_of_a_whole_network_fit_where_timm_names_features_otherwise(tmp_path, name):
    torch.manual_seed(1)
    whole = timm.create_model(name).state_dict()
    save_file(whole, tmp_path / "w.safetensors")
    net = backbone.build(name, None, -1, str(tmp_path / "w.safetensors")).net
    names = {backbone._plain(key): value for key, value in whole.items()}
    assert all(torch.equal(value, names[backbone._plain(key)]) for key, value in net.state_dict().items())
    save_file(net.state_dict(), tmp_path / "again.safetensors")
    backbone.build(name, None, -1, str(tmp_path / "again.safetensors"))


def test_weights_that_do_not_fit_say_which_and_how_many(tmp_path, state):
    path = tmp_path / "w.safetensors"
    first, second = "layer1.0.conv1.weight", "layer1.0.bn1.weight"
    save_file({k: v for k, v in state.items() if k != first} | {second: torch.zeros(1, 2)}, path)
    with pytest.raises(ConfigError) as caught:
        loaded(path)
    message = str(caught.value)
    assert message.startswith(f"model.weights does not fit model.backbone (got {path}); ")
    assert f"1 of 120 keys missing ({first}), 1 of 120 keys of another shape ({second})" in message


def test_weights_of_another_network_show_its_names(tmp_path):
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"120 of 120 keys missing \(conv1.weight, .*, …\); .* like "):
        loaded(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "prefix",
    ["module.", "backbone.", "encoder.", "module.encoder.", "_orig_mod.", "model.", "teacher.backbone."],
)
def test_a_prefix_before_the_names_is_taken_off(tmp_path, state, prefix):
    save_file({prefix + key: value for key, value in state.items()}, tmp_path / "w.safetensors")
    require_loaded(loaded(tmp_path / "w.safetensors"), state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": state, "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 1}]}},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3},
        lambda state: {"student": zeros(state), "teacher": {f"backbone.{k}": v for k, v in state.items()}},
        lambda state: {"model_ema": zeros(state), "model": state},
        lambda state: (
            {"encoder_k." + k: v for k, v in zeros(state).items()}
            | {"encoder_q." + k: v for k, v in state.items()}
        ),
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1), "epoch": 3},
        lambda state: OrderedDict(state),
    ],
)
def test_weights_one_level_deeper_and_beside_other_things_are_found(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "w.pt")
    require_loaded(loaded(tmp_path / "w.pt"), state)


def test_weights_from_before_batches_were_counted_are_loaded(tmp_path, state):
    torch.save({k: v for k, v in state.items() if "num_batches_tracked" not in k}, tmp_path / "w.pt")
    require_loaded(loaded(tmp_path / "w.pt"), state)


def test_weights_of_half_precision_are_loaded(tmp_path, state):
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    torch.save(half, tmp_path / "w.pt")
    require_loaded(loaded(tmp_path / "w.pt"), half)


@pytest.mark.parametrize(("name", "save"), [("w.bin", save_file), ("w.safetensors", torch.save)])
def test_a_file_is_what_its_content_says_whatever_its_name(tmp_path, state, name, save):
    save(state, tmp_path / name)
    require_loaded(loaded(tmp_path / name), state)


def test_whole_numbers_are_no_weights(tmp_path, state):
    save_file(state | {"bn1.weight": state["bn1.weight"].int()}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"1 of 120 keys of another shape \(bn1.weight\)"):
        loaded(tmp_path / "w.safetensors")


def require_loaded(net: nn.Module, state: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(value, state[key].to(value.dtype)) for key, value in net.state_dict().items())


def zeros(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: torch.zeros_like(value) for key, value in state.items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>quota exceeded</html>", "an HTML page.*download it again"),
        (b"", "zero bytes"),
        (b'{"error": "not found"}', "a JSON text"),
        (b"\x89HDF\r\n\x1a\n" + bytes(900), "an HDF5 file"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_is_no_file_of_weights_is_called_what_it_is(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ConfigError, match=rf"model\.weights cannot be read \(got .*{name}\); it is {message}"
    ) as outcome:
        loaded(tmp_path / name)
    assert "\n" not in str(outcome.value) and "\x1b" not in str(outcome.value)


def test_a_file_that_holds_more_than_weights_asks_for_the_weights_alone(tmp_path):
    torch.save(timm.create_model("resnet18"), tmp_path / "w.pt")
    message = r"it holds more than weights \(timm.*\): save what state_dict\(\) of the network gives, alone"
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet18.nope",
            r"resnet18 has no weights of this tag \(got nope\); give one of .*a1_in1k.*, or none",
        ),
        ("hf-hub:timm/resnet18.a1_in1k", "is an address, not a timm model .*timm's name.*: resnet18.a1_in1k"),
        ("timm/resnet18", "is an address, not a timm model .*: resnet18"),
    ],
)
def test_a_backbone_that_cannot_be_had_so_says_how(name, message):
    with pytest.raises(ConfigError, match=rf"model\.backbone:? {message}"):
        backbone.build(name, 8, -1)


def test_a_file_without_names_is_an_error(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"model\.weights holds no weights by name"):
        loaded(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["none.safetensors", "none.pt", "torn.safetensors", "torn.pt", "empty.pt"])
def test_weights_that_cannot_be_read_are_an_error(tmp_path, name):
    if name.startswith("torn"):
        (tmp_path / name).write_bytes(b"no such format, and longer than a header")
    if name.startswith("empty"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"model\.weights cannot be read"):
        loaded(tmp_path / name)
