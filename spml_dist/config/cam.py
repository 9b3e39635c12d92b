"""The experiment that trains the CAM classifier of an experiment."""

from __future__ import annotations

from spml_dist.config.derived import changed, without_relations
from spml_dist.config.models import Config


def cam_experiment(config: Config) -> Config:
    """`config` with the name NAME_cam, cam.steps steps of the poly policy at cam.lr, and nothing that a
    classifier of tags has no use for: relations, bank, momentum encoder, previews, and splits to evaluate
    on, which need not be packed yet.

    Where classes change places in a mirror (`stream.mirror_swaps`), maps of mirrored images would have to
    change places too: none are made.
    """
    schedule = config.schedule
    changes = {
        "name": f"{config.name}_cam",
        "data": {"val": config.data.train, "test": None},
        "schedule": {
            "steps": config.cam.steps,
            "policy": "poly",
            "power": schedule.power or 0.9,
            "warmup": min(schedule.warmup, config.cam.steps - 1),
            "decays": (),
        },
        "optimizer": {"lr": config.cam.lr or config.optimizer.lr},
        "tracking": {"previews": 0},
        "model": {"embedding": None},
        "cam": {"mirror": config.cam.mirror and not config.stream.mirror_swaps},
    }
    return changed(config, changes | without_relations(config))
