"""Feature maps of a timm backbone: convolutional networks and transformers alike."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from spml_dist.config.models import ModelConfig
from spml_dist.errors import ConfigError
from spml_dist.model import pretrained as packages
from spml_dist.model import weights
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
    name: str, output_stride: int | None, level: int, file: str | None = None, pretrained: bool = False
) -> Start:
    """A network whose `features` are feature map number `level`; its parameters carry timm's names.

    output_stride: image pixels per pixel of the network's last map. None takes the network's own; another
    value turns the strides beyond it into dilations, which convolutional networks can do and transformers
    cannot. file: of backbone weights (`spml_dist.model.weights`); images are normalised as a JSON beside it
    says under "mean" and "deviation", else by ImageNet's. pretrained: timm's own weights where its hub can be
    reached, those of a package where it cannot (`spml_dist.model.pretrained`).

    Stochastic depth and dropout are switched off: their draws would depend on the number of workers.
    Raises ConfigError for an unknown name, a stride or level that the network lacks, a network that is tied
    to one image size, and weights that cannot be had, cannot be read or do not fit.
    """
    import timm  # here, not above: it takes seconds, and whoever launches training needs none of it
    from timm.layers import DropPath

    if "/" in name or ":" in name:
        remedy = "give timm's name of the network, and its weights by model.pretrained or model.weights"
        raise ConfigError("model.backbone is an address, not a timm model", name, f"{remedy}: {_last(name)}")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.lower(), timm.list_models(), n=3)
        remedy = f"did you mean {', '.join(near)}?" if near else "timm.list_models() names them all"
        raise ConfigError("model.backbone is not a timm model", name, remedy)
    _require_tag(name)
    options = _options(name, output_stride, level)
    if file is not None:
        start = _from_file(_plain_net(name, options), file, file)
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
    """The network without weights, tried out with two image sizes, neither its own."""
    import timm

    try:
        net: nn.Module = timm.create_model(name, **options).eval()
        device = next(net.parameters()).device
        for rows, columns in ((2, 3), (5, 2)):
            side = stride(net)
            with torch.no_grad():
                shape = features(net, torch.zeros(1, 3, rows * side, columns * side, device=device)).shape
            assert shape[2:] == (rows, columns), f"its map of {rows}×{columns} is {tuple(shape[2:])}"
    except UNFIT as problem:
        remedy = f"it does not take images of any size ({problem}): choose another"
        raise ConfigError("model.backbone", name, remedy) from problem
    return net.train()


def _pretrained(name: str, options: dict[str, Any]) -> Start:
    """With timm's own weights; where its hub does not answer, with those of an installed package."""
    import timm

    with torch.device("meta"):
        _plain_net(name, options)  # one that does not fit is refused before any weights are fetched
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


def _last(address: str) -> str:
    """The part of an address that may be a network's name."""
    return address.rstrip("/").rpartition("/")[2].rpartition(":")[2]


def _require_tag(name: str) -> None:
    """Raise ConfigError, with those that there are, for weights of a tag that timm does not know."""
    import timm

    network, _, tag = name.partition(".")
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{network}.*")]
    if tag and tag not in tags:
        known = f"one of {', '.join(tags)}, or none" if tags else "none"
        remedy = f"give {known}: {network}{'.' + tags[0] if tags else ''}"
        raise ConfigError(f"model.backbone: {network} has no weights of this tag", tag, remedy)


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
    if images.shape[0] == 0 and not any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        # Attention cannot do without an image, but every parameter needs its gradient, zero.
        return features(net, images.new_zeros(1, *images.shape[1:]))[:0]
    if not torch.is_grad_enabled():
        # Convolutions of a CPU are faster so; a training step, whose loss has most of the time, gains little.
        images = images.contiguous(memory_format=torch.channels_last)
    last = net(images)[-1]
    return last.movedim(-1, 1) if getattr(net, "output_fmt", "NCHW") == "NHWC" else last


def recompute(net: nn.Module, name: str) -> None:
    """Let a network's blocks be computed again in the backward pass. Raises ConfigError where that changes
    what is computed, or the network cannot."""
    inner: Any = getattr(net, "model", net)  # timm's transformers stand inside what takes their features
    if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        remedy = (
            f"{name} has batch norms, whose running statistics would follow each step twice: set it to false"
        )
        raise ConfigError("model.checkpointing", "true", remedy)
    if not hasattr(inner, "set_grad_checkpointing"):
        raise ConfigError("model.checkpointing", "true", f"{name} cannot do it: set it to false")
    inner.set_grad_checkpointing(True)


def _options(name: str, output_stride: int | None, level: int) -> dict[str, Any]:
    """What to ask timm for. Networks on the meta device cost nothing and tell what they are."""
    import timm

    try:
        with torch.device("meta"):
            info = _feature_info(timm.create_model(name, features_only=True))
            # Only transformers know these options; others raise TypeError for them.
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
        reached = stride(last)  # timm dilates as far as it can, without a word
    except UNFIT:
        reached = own
    if reached != output_stride:
        remedy = f"{name} has stride {own} and cannot be dilated to that: set it to {own} or null"
        raise ConfigError("model.output_stride", output_stride, remedy)
    return options | {"output_stride": output_stride}


def _load(net: nn.Module, path: str) -> None:
    """Weights from a file, by name; what the file has beyond them, such as a classifier, is left alone."""
    given, own = weights.read(path), net.state_dict()
    matches, missing = weights.fitted(given, own)
    unlike = [key for key, value in matches.items() if not _alike(value, own[key])]
    if missing or unlike:
        counts = [
            f"{len(keys)} of {len(own)} keys {what} ({', '.join(keys[:3] + ['…'] * (len(keys) > 3))})"
            for keys, what in ((missing, "missing"), (unlike, "of another shape"))
            if keys
        ]
        names = f"; the file has names like {next(iter(given), 'none')}" if len(missing) == len(own) else ""
        raise ConfigError("model.weights does not fit model.backbone", path, ", ".join(counts) + names)
    net.load_state_dict(own | matches)


def _alike(value: Tensor, own: Tensor) -> bool:
    """Of one shape, and both of fractions or both of whole numbers."""
    return value.shape == own.shape and value.is_floating_point() == own.is_floating_point()


def _plain(key: str) -> str:
    return weights.plain(key)
