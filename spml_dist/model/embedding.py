"""The embedding of a trained network under a classifier that is trained anew."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from spml_dist.config import read_section
from spml_dist.config.models import ModelConfig
from spml_dist.errors import ConfigError
from spml_dist.model import export
from spml_dist.model.segmenter import Segmenter
from spml_dist.run_folder import MODEL_INFO

ARCHITECTURE = ("backbone", "output_stride", "feature_level", "head", "dilations", "embedding_dim")
"""keys of the section `model` that decide what an embedding is computed by"""
PARTS = ("backbone.", "head.")
"""beginnings of the names of its tensors"""


def adopt(network: Segmenter, config: ModelConfig) -> None:
    """Give a network the backbone and head of the export in `model.embedding`, never to change.

    They get no gradient, and their batch norms keep the statistics of their own training. Images are
    normalised as that network's. Raises RunError for an export that cannot be read, ConfigError for one of
    another architecture.
    """
    folder = Path(config.embedding or "")
    source, info = export.load(folder)
    _require_same_architecture(folder, read_section("model", ModelConfig, info["model"], folder), config)
    for own, given in ((network.backbone, source.backbone), (network.head, source.head)):
        own.load_state_dict(given.state_dict())
        # Not `train()` ever again: a batch norm that follows the data would change the embedding.
        own.requires_grad_(False).eval()
    network.normalisation, network.origin = source.normalisation, f"the embedding of {folder}"


def tensors(folder: Path) -> dict[str, Tensor]:
    """Backbone and head of an export by name, as they are on disk."""
    network, _ = export.load(folder)
    return {name: value for name, value in network.state_dict().items() if name.startswith(PARTS)}


def _require_same_architecture(folder: Path, there: ModelConfig, here: ModelConfig) -> None:
    for key in ARCHITECTURE:
        theirs, ours = getattr(there, key), getattr(here, key)
        if theirs != ours:
            what = f"model.{key} is not that of model.embedding, {folder / MODEL_INFO}"
            raise ConfigError(what, ours, f"give {theirs}, or another model.embedding")
