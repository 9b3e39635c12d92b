"""Feature maps of a timm backbone: convolutional networks and transformers alike."""

from __future__ import annotations

import difflib
import inspect
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from spml_dist.config.models import ModelConfig
from spml_dist.errors import ConfigError
from spml_dist.model import pretrained as packages
from spml_dist.records import IMAGENET, Normalisation

ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False}
"""Options of timm's transformers that let them take images of any size"""

UNFIT = (RuntimeError, TypeError, NotImplementedError, AssertionError, IndexError, ValueError)
"""What timm raises for a wish that a network cannot fulfil"""


@dataclass(frozen=True)
class Start:
    """A network with the weights that its training starts from."""

    net: nn.Module
    normalisation: Normalisation
    """how images are normalised for these weights"""
    origin: str
    """where they come from, for people"""


def from_config(config: ModelConfig) -> Start:
    """The backbone that a configuration asks for; as `build`."""
    return build(
        config.backbone, config.output_stride, config.feature_level, config.weights, config.pretrained
    )


def build(
    name: str, output_stride: int | None, level: int, weights: str | None = None, pretrained: bool = False
) -> Start:
    """A network whose `features` are feature map number `level`; its parameters carry timm's names.

    output_stride: image pixels per pixel of the network's last map. None takes the network's own; another
    value turns the strides beyond it into dilations, which convolutional networks can do and transformers
    cannot. weights: a file of backbone weights (safetensors or torch); images are normalised as a JSON
    beside it says under "mean" and "deviation", else by ImageNet's. pretrained: timm's own weights where
    its hub can be reached, those of a package where it cannot (`spml_dist.model.pretrained`).

    Stochastic depth and dropout are switched off: their draws would depend on the number of workers.
    Raises ConfigError for an unknown name, a stride or level that the network lacks, a network that is tied
    to one image size, and weights that cannot be had, cannot be read or do not fit.
    """
    import timm  # here, not above: it takes seconds, and whoever launches training needs none of it
    from timm.layers import DropPath

    if not timm.is_model(name):
        near = difflib.get_close_matches(name.lower(), timm.list_models(), n=3)
        remedy = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names them all"
        raise ConfigError("model.backbone is not a timm model", name, remedy)
    options = _options(name, output_stride, level)
    _try_out(name, options)
    if weights is not None:
        start = _from_file(_plain_net(name, options), weights, weights)
    elif pretrained:
        start = _pretrained(name, options)
    else:
        start = Start(_plain_net(name, options), IMAGENET, "no weights")
    for module in start.net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.drop_prob = 0.0
    return start


def _plain_net(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    return timm.create_model(name, **options)


def _pretrained(name: str, options: dict[str, Any]) -> Start:
    """With timm's own weights; where its hub does not answer, with those of an installed package."""
    import timm

    network = name.partition(".")[0]  # without the tag that chooses among timm's own weights
    packed = packages.installed(network)
    if packed and not packages.hub_answers():
        return _from_package(name, network, options)
    try:
        net = timm.create_model(name, pretrained=True, **options)
    except (OSError, *UNFIT) as problem:
        if packed:
            return _from_package(name, network, options)
        remedy = (
            f"timm cannot fetch weights: {problem}; {packages.remedy(network)}set it to false, or name a "
            "file in model.weights"
        )
        raise ConfigError("model.pretrained", True, remedy) from problem
    known = cast(Any, timm.get_pretrained_cfg(name))  # there is one: its weights have been fetched
    normalisation = Normalisation(tuple(known.mean), tuple(known.std))
    return Start(net, normalisation, f"timm's weights {known.hf_hub_id or known.url}")


def _from_package(name: str, network: str, options: dict[str, Any]) -> Start:
    import timm

    with torch.device("meta"):
        whole = timm.create_model(network).state_dict()
    path = packages.cached(network, whole)
    facts = packages.described(path)
    origin = f"the weights of package {facts['package']} {facts['version']} ({facts['licence']})"
    return _from_file(_plain_net(name, options), str(path), origin)


def _from_file(net: nn.Module, path: str, origin: str) -> Start:
    _load(net, path)
    return Start(net, Normalisation.of(packages.described(Path(path))), origin)


def stride(net: nn.Module) -> int:
    """Image pixels per pixel of the network's feature map, along each side."""
    return _feature_info(net).reduction()[-1]


def channels(net: nn.Module) -> int:
    """F of its feature map."""
    return _feature_info(net).channels()[-1]


def _feature_info(net: nn.Module) -> Any:
    return cast(Any, net).feature_info  # timm's own attribute


def features(net: nn.Module, images: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, F, H/s, W/s] for the network's stride s, of which H and W are multiples."""
    if len(images) == 0 and not any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        # Attention cannot do without an image, but every parameter needs its gradient, zero.
        return features(net, images.new_zeros(1, *images.shape[1:]))[:0]
    last = net(images)[-1]
    return last.movedim(-1, 1) if getattr(net, "output_fmt", "NCHW") == "NHWC" else last


def _options(name: str, output_stride: int | None, level: int) -> dict[str, Any]:
    """What to ask timm for. Networks on the meta device cost nothing and tell what they are."""
    import timm

    try:
        with torch.device("meta"):
            info = _feature_info(timm.create_model(name, features_only=True))
            takes = inspect.signature(type(timm.create_model(name)).__init__).parameters
    except UNFIT as problem:
        raise ConfigError("model.backbone gives no feature maps", name, str(problem)) from problem
    levels, own = len(info), info.reduction()[-1]
    if level >= levels:
        raise ConfigError("model.feature_level", level, f"{name} has feature maps 0 to {levels - 1}")
    options: dict[str, Any] = {"features_only": True, "out_indices": (level % levels,)}
    options |= {key: value for key, value in ANY_SIZE.items() if key in takes}
    if output_stride in (None, own):
        return options
    try:
        with torch.device("meta"):
            last = timm.create_model(name, output_stride=output_stride, features_only=True)
        reached = stride(last)
    except UNFIT:
        reached = own
    if reached != output_stride:
        remedy = f"{name} has stride {own} and cannot be dilated to that: set it to {own} or null"
        raise ConfigError("model.output_stride", output_stride, remedy)
    return options | {"output_stride": output_stride}


def _try_out(name: str, options: dict[str, Any]) -> None:
    """Two image sizes, neither the network's own, through it on the meta device: shapes alone."""
    import timm

    try:
        with torch.device("meta"):
            net = timm.create_model(name, **options)
            for rows, columns in ((2, 3), (5, 2)):
                side = stride(net)
                shape = features(net, torch.zeros(1, 3, rows * side, columns * side)).shape
                assert shape[2:] == (rows, columns), f"its map of {rows}×{columns} is {tuple(shape[2:])}"
    except UNFIT as problem:
        remedy = f"it does not take images of any size ({problem}): choose another"
        raise ConfigError("model.backbone", name, remedy) from problem


def _load(net: nn.Module, path: str) -> None:
    """Weights from a file, by name; what the file has beyond them, such as a classifier, is left alone."""
    weights = _read(path)
    # timm's feature networks call `stages.0` of a whole network `stages_0`, and put `model.` before all.
    by_name = {_plain(key): value for key, value in weights.items()}
    expected = net.state_dict()
    missing = [key for key in expected if _plain(key) not in by_name]
    unlike = [
        key
        for key, value in expected.items()
        if _plain(key) in by_name and getattr(by_name[_plain(key)], "shape", None) != value.shape
    ]
    if missing or unlike:
        counts = [
            f"{len(keys)} of {len(expected)} keys {what} ({', '.join(keys[:3] + ['…'] * (len(keys) > 3))})"
            for keys, what in ((missing, "missing"), (unlike, "of another shape"))
            if keys
        ]
        remedy = ", ".join(counts) + _hint(weights, missing)
        raise ConfigError("model.weights does not fit model.backbone", path, remedy)
    net.load_state_dict({key: by_name[_plain(key)] for key in expected})


def _read(path: str) -> dict[str, Tensor]:
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, SafetensorError) as problem:
        raise ConfigError("model.weights cannot be read", path, str(problem)) from problem
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ConfigError(
            "model.weights holds no weights by name", path, "save what state_dict() of the network gives"
        )
    return state


def _plain(key: str) -> str:
    return key.removeprefix("model.").replace("_", ".")


def _hint(weights: dict[str, Any], missing: list[str]) -> str:
    """Where the missing weights may be: under a prefix, or one level deeper."""
    inner = [key for key, value in weights.items() if isinstance(value, dict)]
    if missing and inner:
        return f"; they may lie inside its {inner[0]!r}: save that part alone"
    for key in missing[:3]:
        for other in weights:
            if _plain(other).endswith("." + _plain(key)):
                prefix = other[: -len(key.removeprefix("model."))]
                return f"; the file puts {prefix!r} before its names: remove it there"
    return f"; the file has names like {next(iter(weights), 'none')}" if missing else ""
