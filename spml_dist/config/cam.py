"""The experiment that trains the CAM classifier of an experiment."""

from __future__ import annotations

from spml_dist.config.models import Config


def cam_experiment(config: Config) -> Config:
    """`config` with the name NAME_cam, cam.steps steps of the poly policy, and nothing that a classifier of
    tags has no use for: relations, bank, momentum encoder, previews, and splits to evaluate on, which need
    not be packed yet.

    Where classes change places in a mirror (`stream.mirror_swaps`), maps of mirrored images would have to
    change places too: none are made.
    """
    schedule, relations = config.schedule, config.relations.model_dump()
    # Neutral values, not only unused ones: rules between fields must hold for whatever the experiment has.
    changed = {
        "name": f"{config.name}_cam",
        "data": {"val": config.data.train, "test": None},
        "schedule": {
            "steps": config.cam.steps,
            "policy": "poly",
            "power": schedule.power or 0.9,
            "warmup": min(schedule.warmup, config.cam.steps - 1),
            "decays": (),
        },
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
        "tracking": {"previews": 0},
        "cam": {"mirror": config.cam.mirror and not config.stream.mirror_swaps},
    }
    return Config.model_validate(_merged(config.model_dump(), changed))


def _merged(values: dict, changed: dict) -> dict:
    return values | {
        key: values[key] | value if isinstance(value, dict) else value for key, value in changed.items()
    }
