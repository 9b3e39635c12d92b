"""The whole network, built from a configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, pad

from spml_dist.config import load
from spml_dist.errors import ConfigError
from spml_dist.model.batch_norm import GlobalBatchNorm
from spml_dist.model.segmenter import Segmenter, build
from tests.conftest import SMALL

CONFIGS = Path(__file__).parents[2] / "configs"


def config(name: str = "small", **changes):
    model = load(SMALL if name == "small" else CONFIGS / f"{name}.yaml").model
    return model.model_copy(update={"pretrained": False, "dilations": (1, 2), "embedding_dim": 8} | changes)


@pytest.fixture(scope="module")
def small() -> Segmenter:
    return build(config(), num_classes=5, seed=3)


def images(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def gradients(module: nn.Module) -> list[bool]:
    return [p.grad is not None and bool((p.grad != 0).any()) for p in module.parameters()]


@pytest.mark.parametrize(("size", "side"), [(64, 16), (65, 17), (68, 17), (72, 18)])
def test_embedding_and_scores_lie_on_a_quarter_grid(small, size, side):
    raw, logits = small(images(2, size), [1, 2])
    assert raw.shape == (2, 8, side, side) and logits.shape == (2, 5, side, side)


def test_the_embedding_is_the_head_s_map_doubled_in_size_at_the_published_stride(small):
    small.eval()
    low = small.head(small.backbone(images())[-1])
    expected = interpolate(low, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.equal(small.embed(images()), expected)
    small.train()


def test_an_odd_image_is_embedded_as_if_it_had_a_border_of_the_mean_colour(small):
    small.eval()
    odd = images(1, 61)[..., :43]
    torch.testing.assert_close(small.embed(odd), small.embed(pad(odd, (0, 5, 0, 3)))[..., :16, :11])
    small.train()


def test_the_pyramid_head_can_be_had():
    model = build(config(head="pspnet", dilations=()), 5, seed=0)
    raw, logits = model(images(3), [1, 2, 3])
    assert raw.shape == (3, 8, 16, 16) and logits.shape == (3, 5, 16, 16)
    raw.square().sum().backward()
    assert all(gradients(model.head)) and any(gradients(model.backbone))
    assert all(isinstance(m, GlobalBatchNorm) for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert {m.momentum for m in model.head.modules() if isinstance(m, GlobalBatchNorm)} == {0.1}


def test_no_images_are_no_embeddings_and_a_finite_gradient():
    model = build(config(), 5, seed=0)
    raw, logits = model(images(0), [])
    assert raw.shape == (0, 8, 16, 16) and logits.shape == (0, 5, 16, 16)
    (raw.sum() + logits.sum()).backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in model.parameters())


@pytest.mark.parametrize("level", [1, 2, 3, 4, -1])
def test_the_feature_level_chooses_the_backbone_s_map(level):
    model = build(config(feature_level=level), 5, seed=0)
    channels = {1: 64, 2: 128, 3: 256, 4: 512, -1: 512}[level]
    assert model.backbone.feature_info.channels() == [channels]
    assert model.backbone(images(1))[-1].shape[1] == channels


def test_a_feature_level_that_the_backbone_lacks_is_an_error():
    with pytest.raises(ConfigError, match=r"model\.feature_level \(got 7\).* feature maps 0 to 4"):
        build(config(feature_level=7), 5, seed=0)


def test_the_seed_decides_the_weights_and_the_callers_random_state_stays(small):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    again, other = build(config(), 5, seed=3), build(config(), 5, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    same = [torch.equal(a, b) for a, b in zip(small.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(small.head.branches[0].weight, other.head.branches[0].weight)


def test_the_classifier_reads_unit_vectors(small):
    small.eval()
    raw = small.embed(images())
    torch.testing.assert_close(small.classify(raw), small.classify(3 * raw))
    small.train()


@pytest.mark.parametrize("detached", [True, False])
def test_the_classifier_trains_the_backbone_only_if_it_is_not_detached(detached):
    model = build(config(classifier_detached=detached), 5, seed=0)
    _, logits = model(images(), [1, 2])
    logits.square().sum().backward()
    assert all(gradients(model.classifier))
    assert any(gradients(model.backbone)) != detached
    assert any(gradients(model.head)) != detached


def test_frozen_prefixes_freeze_parameters_but_not_the_running_statistics():
    model = build(config(frozen=("conv1", "bn1", "layer1")), 5, seed=0)
    frozen = {name for name, p in model.backbone.named_parameters() if not p.requires_grad}
    assert frozen == {
        name
        for name, _ in model.backbone.named_parameters()
        if name.split(".")[0] in ("conv1", "bn1", "layer1")
    }
    assert all(p.requires_grad for part in (model.head, model.classifier) for p in part.parameters())
    before = {k: v.clone() for k, v in model.backbone.named_buffers() if k.endswith("running_mean")}
    raw, _ = model(images(), [1, 2])
    raw.sum().backward()
    for name, value in model.backbone.named_buffers():
        if name in before:
            assert not torch.equal(value, before[name]), name


def test_a_prefix_is_a_whole_name():
    model = build(config(frozen=("layer1.0.bn1",)), 5, seed=0)
    frozen = [name for name, p in model.backbone.named_parameters() if not p.requires_grad]
    assert frozen == ["layer1.0.bn1.weight", "layer1.0.bn1.bias"]


@pytest.mark.parametrize(
    ("prefix", "message"),
    [("layer11", "did you mean .*layer1"), ("layer", "did you mean"), ("?", "called like conv1.0.weight")],
)
def test_a_prefix_that_freezes_nothing_is_an_error(prefix, message):
    with pytest.raises(ConfigError, match=rf"model\.frozen .* \(got {re.escape(prefix)}\); .*{message}"):
        build(config(frozen=("conv1", prefix)), 5, seed=0)


def test_every_batch_norm_covers_all_ranks(small):
    norms = [m for m in small.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(isinstance(m, GlobalBatchNorm) for m in norms)


def test_the_published_deeplab_network():
    """ResNet-101 with a deep stem at stride 8, DeepLab head, classifier: numbers of the released network."""
    with torch.device("meta"):
        model = build(config("voc12_scribble", dilations=(6, 12, 18, 24), embedding_dim=64), 21, seed=0)
        raw, logits = model.eval()(torch.zeros(2, 3, 512, 512))
    assert raw.shape == (2, 64, 128, 128) and logits.shape == (2, 21, 128, 128)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert parts["backbone"] + parts["head"] == 47_342_784
    assert parts["classifier"] == 76_693
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 349_120
    layers = [model.backbone[f"layer{number}"] for number in range(1, 5)]
    assert [len(layer) for layer in layers] == [3, 4, 23, 3]
    assert [layer[0].conv2.stride[0] for layer in layers] == [1, 2, 1, 1]
    assert [layer[0].conv2.dilation[0] for layer in layers] == [1, 1, 1, 2]
    assert [layer[1].conv2.dilation[0] for layer in layers] == [1, 1, 2, 4]
    momenta = {m.momentum for m in model.backbone.modules() if isinstance(m, GlobalBatchNorm)}
    assert momenta == {3e-4} and model.classifier.norm.momentum == 0.1
