"""The experiment that trains a classifier on the finished embedding of a run."""

from __future__ import annotations

import re
from pathlib import Path

from spml_dist.config.derived import changed, without_relations
from spml_dist.config.models import Config, ModelConfig
from spml_dist.errors import ConfigError


def classifier_experiment(
    config: Config, folder: Path, embedding: Path, model: ModelConfig, labels: str | None = None
) -> Config:
    """`config` with what its section `classifier` says of batches, rate and schedule, and nothing that a
    frozen embedding has no use for: relations, bank, momentum encoder.

    config: of the run that the embedding is from; folder: to be the new run's; embedding: exported network;
    model: of that network; labels: packed images to learn from, None for those of the run.
    """
    settings, remote = config.classifier, config.checkpoint.remote
    changes = {
        "name": folder.name,
        "output": str(folder.parent),
        "data": {"train": labels or config.data.train},
        # Of the network as it was trained: what the file says by now could be another.
        "model": model.model_dump()
        | {
            "weights": None,
            "pretrained": False,
            "frozen": (),
            "embedding": str(embedding),
            "classifier_dropout": settings.dropout,
            "classifier_detached": True,
        },
        "stream": {
            "batch": settings.batch,
            "scale": settings.scale,
            "grey": settings.grey,
            "blur": settings.blur,
        },
        # Nothing but the classifier is trained: its rate is the rate.
        "optimizer": {"lr": settings.lr, "head_multiplier": 1.0},
        "schedule": {
            "steps": settings.steps,
            "policy": "poly",
            "power": settings.power,
            "warmup": min(settings.warmup, settings.steps - 1),
            "decays": (),
        },
        # Where the run's own are, as the stage's folder is in the run's.
        "checkpoint": {"remote": remote and f"{remote.rstrip('/')}/{config.name}/{folder.parent.name}"},
    }
    try:
        return changed(config, changes | without_relations(config))
    except ConfigError as error:
        raise ConfigError(_own(error.what), error.value, _own(error.remedy)) from error


def _own(text: str) -> str:
    """An error's words with the keys that the classifier's values are given by."""
    return re.sub(
        r"\b(stream|optimizer|schedule)\.(batch|scale|grey|blur|lr|steps|power|warmup)\b",
        r"classifier.\2",
        text,
    )
