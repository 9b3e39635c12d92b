"""What experiments that are made of another one share."""

from __future__ import annotations

from typing import Any

from spml_dist.config.models import Config


def without_relations(config: Config) -> dict[str, Any]:
    """The sections of `config` that only relations and their bank read, so that these are off.

    Neutral values, not only unused ones: rules between fields must hold for whatever the experiment has.
    """
    relations = config.relations.model_dump()
    return {
        "relations": {name: relation | {"weight": 0.0} for name, relation in relations.items()},
        "loss": {"cross_entropy": 1.0, "reduction": "global"},
        "bank": {
            "candidates": "recent",
            "steps": 0,
            "storage": "float32",
            "warmup": 0,
            "max_age": None,
            "own_images": False,
            "gpu_index": False,
            "encoder_momentum": None,
        },
    }


def changed(config: Config, changes: dict[str, Any]) -> Config:
    """`config` with other values of some keys; of a section those that `changes` leaves out stay."""
    values = config.model_dump()
    merged = {
        key: values[key] | value if isinstance(value, dict) else value for key, value in changes.items()
    }
    return Config.model_validate(values | merged)
