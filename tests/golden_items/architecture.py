"""Golden item of the networks: names, shapes and optimiser settings of every parameter, norms, convolutions.

The table has the release's names; timm's and this package's are given here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import nn

from spml_dist.config import load
from spml_dist.config.models import OptimizerConfig
from spml_dist.method.colour import smoothing
from spml_dist.model.segmenter import Segmenter, build
from spml_dist.training.optimizer import parameter_groups

CONFIGS = Path(__file__).parents[2] / "configs"
EXPERIMENTS = {"deeplab101_voc": "voc12_scribble", "pspnet101_densepose": "densepose_point"}
"""network of the table → shipped experiment"""
LAST = {"deeplab101_voc": "aspp.aspp_1.0.weight", "pspnet101_densepose": "pspp.1.weight"}
"""network of the table → a parameter with as many outputs as the embedding has dimensions"""

NAMES = {
    "resnet_backbone.conv1.conv1.": "backbone.conv1.",
    "resnet_backbone.conv1.bn1": "backbone.bn1",
    **{f"resnet_backbone.res{stage + 1}.": f"backbone.layer{stage}." for stage in range(1, 5)},
    **{f"aspp.aspp_{branch + 1}.0": f"head.branches.{branch}" for branch in range(4)},
    **{f"pspp.0.pspp_{level + 1}.1": f"head.pyramid.{level}.0" for level in range(4)},
    **{f"pspp.0.pspp_{level + 1}.2": f"head.pyramid.{level}.1" for level in range(4)},
    "pspp.0.conv.": "head.mix.",
    "pspp.1": "head.embed",
    "semantic_classifier.0": "classifier.mix",
    "semantic_classifier.1": "classifier.norm",
    "semantic_classifier.4": "classifier.classify",
}
"""how a name begins in the release → how it begins here"""

KERNEL = "lfn.smooth_kernel.weight"
"""A constant that the release keeps among its parameters; here it is computed"""


def model_param_table(table: dict) -> list[tuple[str, float, float]]:
    """Counts of entries that differ, in both directions; nothing may."""
    known = {"head_voc", *(f"{network}{part}" for network in EXPERIMENTS for part in ("", "_bn", "_conv"))}
    rows = [("sections", float(len(known ^ set(table))), 0.0)]
    for network, experiment in EXPERIMENTS.items():
        model, optimizer = _network(experiment, *_sizes(table, network))
        parts = {"backbone", "head"}
        rows += [
            (f"{network} parameters", _differing(table[network], _parameters(model, optimizer, parts)), 0.0),
            (f"{network} norms", _differing(table[f"{network}_bn"].items(), _norms(model, parts)), 0.0),
            (f"{network} convolutions", _differing(table[f"{network}_conv"].items(), _convs(model)), 0.0),
        ]
        if network == "deeplab101_voc":
            ours = [entry[:2] for entry in _parameters(model, optimizer, {"classifier"})]
            rows.append(("head_voc", _differing(table["head_voc"], ours), 0.0))
    return rows


def _sizes(table: dict, network: str) -> tuple[int, int]:
    """Embedding dimensions and classes."""
    shapes = {name: shape for name, shape, *_ in (*table[network], *table["head_voc"])}
    return shapes[LAST[network]][0], shapes["semantic_classifier.4.weight"][0]


@cache
def _network(experiment: str, embedding_dim: int, classes: int) -> tuple[Segmenter, OptimizerConfig]:
    """A shipped experiment's network on the meta device, and its optimiser settings."""
    config = load(CONFIGS / f"{experiment}.yaml", [f"model.embedding_dim={embedding_dim}"])
    with torch.device("meta"):
        model = build(config.model.model_copy(update={"pretrained": False}), classes, seed=0)
    return model, config.optimizer


def _parameters(model: Segmenter, optimizer: OptimizerConfig, parts: set[str]) -> list[list]:
    """[name, shape, [multiplier, weight decay]] as the table writes it."""
    settings = {
        id(parameter): [
            group["multiplier"],
            "default" if group["weight_decay"] == optimizer.weight_decay else group["weight_decay"],
        ]
        for group in parameter_groups(model, optimizer)
        for parameter in group["params"]
    }
    found = [
        [name, list(parameter.shape), settings.get(id(parameter), [0, "not in optimizer"])]
        for name, parameter in model.named_parameters()
        if name.split(".")[0] in parts
    ]
    if hasattr(model.head, "pyramid"):
        weights = smoothing("cone").expand(3, 1, 5, 5)
        found.append([KERNEL, list(weights.shape), [0, "not in optimizer"]])
    return found


def _norms(model: Segmenter, parts: set[str]) -> list:
    """[name, [momentum, ε, channels]]"""
    return [
        [name, [module.momentum, module.eps, module.num_features]]
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and name.split(".")[0] in parts
    ]


def _convs(model: Segmenter) -> list:
    """[name, [inputs, outputs, kernel, stride, padding, dilation, bias]]"""
    return [
        [
            name,
            [
                module.in_channels,
                module.out_channels,
                *(list(x) for x in (module.kernel_size, module.stride, module.padding, module.dilation)),
                module.bias is not None,
            ],
        ]
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and not name.startswith("classifier.")
    ]


def _differing(expected, ours: list) -> float:
    """Entries that only one side has; each is a name and its description."""
    theirs = {_renamed(name): message for name, *message in expected}
    mine = {name: message for name, *message in ours}
    return float(sum(theirs.get(name) != mine.get(name) for name in {*theirs, *mine}))


def _renamed(name: str) -> str:
    fitting = [prefix for prefix in NAMES if name.startswith(prefix)]
    return NAMES[fitting[0]] + name.removeprefix(fitting[0]) if fitting else name
