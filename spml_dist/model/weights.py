"""Backbone weights from a file, in the wrappings that people's files have."""

from __future__ import annotations

import argparse
import pickle
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from spml_dist.errors import ConfigError
from spml_dist.files.signatures import recognised

INSIDE = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "teacher",
    "student",
    "model_ema",
    "state_dict_ema",
    "module",
    "network",
    "net",
    "backbone",
    "encoder",
    "params",
    "weights",
)
"""entries of a file that may hold the weights; of several that do, the first of these"""
PREFIXES = ("", "model.", "module.", "backbone.", "encoder.", "encoder_q.", "teacher.", "student.")
"""what files put before the names; of several that fit, the first of these, else the shortest"""
COUNTED = "num_batches_tracked"
"""a count of batch norm that files from before PyTorch 0.4.1 lack; with a fixed momentum nobody reads it"""


def read(path: str) -> dict[str, Any]:
    """What a file holds by name, safetensors or torch. Raises ConfigError, saying what it really is."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
        if recognised(head, Path(path).stat().st_size)[0] == "a safetensors file":
            return load_file(path)
        # What training scripts commonly save beside the weights: their options, which cannot run anything.
        safe = torch.serialization.safe_globals([argparse.Namespace, types.SimpleNamespace])
        with safe, open(path, "rb") as file:
            # The file, not its path, by whose ending torch would take it for safetensors.
            state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as problem:
        raise ConfigError("model.weights cannot be read", path, problem.strerror or str(problem)) from problem
    except Exception as problem:  # of a damaged file both libraries raise whatever it leads them to
        raise _unreadable(path, head, problem) from problem
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        remedy = "save what state_dict() of the network gives"
        raise ConfigError("model.weights holds no weights by name", path, remedy)
    return dict(state)


def _unreadable(path: str, head: bytes, problem: Exception) -> ConfigError:
    title, remedy = recognised(head)
    text = str(problem).split("\n")[0]
    if isinstance(problem, pickle.UnpicklingError) and (more := _foreign_class(str(problem))):
        remedy = f"it holds more than weights ({more}): save what state_dict() of the network gives, alone"
    elif title and title != "a ZIP archive":
        remedy = f"it is {title}; {remedy or 'give a file of weights, safetensors or torch'}"
    else:
        remedy = f"damaged, or no file of weights ({_plain_line(text)}); download or save it again"
    return ConfigError("model.weights cannot be read", path, remedy)


def _foreign_class(problem: str) -> str | None:
    """The class that PyTorch would have had to run code for."""
    match = re.search(r"GLOBAL (\S+) was not an allowed global|Unsupported (?:global|class) (\S+)", problem)
    return next(filter(None, match.groups())).strip(".,") if match else None


def _plain_line(text: str) -> str:
    return re.sub(r"\x1b\[\d*m", "", text)[:120]


def fitted(given: Mapping[str, Any], target: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """(the weights of `given` by the names of `target`, the names it lacks).

    The weights may lie deeper (`INSIDE`) and under a prefix. Counts of batches may be missing.
    """
    best: tuple[dict[str, Tensor], list[str]] = {}, list(target)
    for state in _states(given):
        names = {plain(key): value for key, value in state.items() if isinstance(value, Tensor)}
        for prefix in _prefixes(names, target):
            matches = {key: names[prefix + plain(key)] for key in target if prefix + plain(key) in names}
            missing = [key for key in target if key not in matches and not key.endswith(COUNTED)]
            if not missing:
                return matches, []
            if len(missing) < len(best[1]):
                best = matches, missing
    return best


def _states(given: Mapping[str, Any], depth: int = 3) -> Iterator[Mapping[str, Any]]:
    """The file's own entries, then those of its parts: the likeliest first."""
    yield given
    parts = [key for key in INSIDE if key in given] + [key for key in given if key not in INSIDE]
    for key in parts:
        part = given[key]
        if depth and isinstance(part, Mapping) and all(isinstance(name, str) for name in part):
            yield from _states(part, depth - 1)


def _prefixes(names: Mapping[str, Any], target: Mapping[str, Tensor]) -> list[str]:
    """What may stand before the names, by a name of the target that the state ends in."""
    probe = next((plain(key) for key in target if not key.endswith(COUNTED)), "")
    ends = {name.removesuffix(probe) for name in names if name == probe or name.endswith(f".{probe}")}
    known = [plain(prefix) if prefix != "model." else prefix for prefix in PREFIXES]
    return sorted(ends, key=lambda end: (known.index(end) if end in known else len(known), len(end), end))


def plain(key: str) -> str:
    """A name in one spelling: timm's feature networks call `stages.0` of a whole network `stages_0`, and put
    `model.` before all."""
    return key.removeprefix("model.").replace("_", ".")
