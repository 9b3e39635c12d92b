"""spml_dist: a distributed trainer for universal weakly supervised segmentation (SPML).

A loop of one's own takes `segment`, `SPMLLoss`, `MemoryBank` and `Stream`; a whole experiment is
`load_config`, `train`, `classify` and `refine`; what it has learnt is used by `load_model`, `predict` and
`evaluate`, and asked about a collection by `open_index`. Importing the package loads none of them: each is
loaded when its name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spml_dist.bank.memory_bank import MemoryBank
    from spml_dist.config.load import load as load_config
    from spml_dist.data.stream.loader import Stream
    from spml_dist.errors import ConfigError, DataError, RunError, SpmlError, Stopped
    from spml_dist.inference.evaluate_run import evaluate
    from spml_dist.inference.trained_model import load_model, predict
    from spml_dist.method.segments import segment
    from spml_dist.method.spml_loss import SPMLLoss
    from spml_dist.retrieval.collection import open_index
    from spml_dist.training.classify import classify
    from spml_dist.training.launch import train
    from spml_dist.training.refine import refine

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "DataError",
    "MemoryBank",
    "RunError",
    "SPMLLoss",
    "SpmlError",
    "Stopped",
    "Stream",
    "classify",
    "evaluate",
    "load_config",
    "load_model",
    "open_index",
    "predict",
    "refine",
    "segment",
    "train",
]

_PLACES = {
    "ConfigError": "spml_dist.errors:ConfigError",
    "DataError": "spml_dist.errors:DataError",
    "MemoryBank": "spml_dist.bank.memory_bank:MemoryBank",
    "RunError": "spml_dist.errors:RunError",
    "SPMLLoss": "spml_dist.method.spml_loss:SPMLLoss",
    "SpmlError": "spml_dist.errors:SpmlError",
    "Stopped": "spml_dist.errors:Stopped",
    "Stream": "spml_dist.data.stream.loader:Stream",
    "classify": "spml_dist.training.classify:classify",
    "evaluate": "spml_dist.inference.evaluate_run:evaluate",
    "load_config": "spml_dist.config.load:load",
    "load_model": "spml_dist.inference.trained_model:load_model",
    "open_index": "spml_dist.retrieval.collection:open_index",
    "predict": "spml_dist.inference.trained_model:predict",
    "refine": "spml_dist.training.refine:refine",
    "segment": "spml_dist.method.segments:segment",
    "train": "spml_dist.training.launch:train",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, member = _PLACES[name].partition(":")
    return getattr(import_module(module), member)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
