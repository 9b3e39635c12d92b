"""Feature maps of a timm backbone."""

from __future__ import annotations

import difflib
import pickle

import timm
import torch
from safetensors import SafetensorError
from torch import nn

from spml_dist.errors import ConfigError


def build(
    name: str, output_stride: int, level: int, weights: str | None = None, pretrained: bool = False
) -> nn.Module:
    """A network [B, 3, H, W] -> [feature map number `level`] of `feature_info.channels()[-1]` channels.

    weights: a file of backbone weights (safetensors or torch); keys that are missing fail with their names.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ConfigError(
            "model.backbone is not a timm model", name, f"did you mean {', '.join(near)}?" if near else ""
        )
    options = {"features_only": True, "pretrained": pretrained and weights is None}
    try:
        levels = len(timm.create_model(name, features_only=True).feature_info)
        if level >= levels:
            raise ConfigError("model.feature_level", level, f"{name} has feature maps 0 to {levels - 1}")
        net = timm.create_model(name, output_stride=output_stride, out_indices=(level % levels,), **options)
    except (RuntimeError, TypeError, NotImplementedError, AssertionError, IndexError) as problem:
        raise ConfigError(
            "model.backbone cannot give features at this stride", name, str(problem)
        ) from problem
    if weights is not None:
        _load(net, weights)
    return net


def _load(net: nn.Module, path: str) -> None:
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, SafetensorError) as problem:
        raise ConfigError("model.weights cannot be read", path, str(problem)) from problem
    wanted = net.state_dict()
    missing = sorted(key for key in wanted if key not in state)
    unlike = sorted(key for key in wanted if key in state and state[key].shape != wanted[key].shape)
    if missing or unlike:
        raise ConfigError(
            "model.weights does not fit model.backbone",
            path,
            f"{len(missing)} keys missing ({', '.join(missing[:3])}…), "
            f"{len(unlike)} of another shape ({', '.join(unlike[:3])}…)",
        )
    net.load_state_dict({key: state[key] for key in wanted})
