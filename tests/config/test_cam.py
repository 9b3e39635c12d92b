"""What becomes of an experiment when its CAM classifier is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from spml_dist.config import differences, dump, load
from spml_dist.config.cam import cam_experiment
from tests.conftest import SMALL

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_experiment_has_one_that_is_written_and_read_alike(path: Path, tmp_path):
    config = cam_experiment(load(path))
    assert config.name == f"{path.stem}_cam"
    assert (config.schedule.steps, config.schedule.policy) == (config.cam.steps, "poly")
    (tmp_path / "config.yaml").write_text(dump(config))
    assert load(tmp_path / "config.yaml") == config


def test_what_a_classifier_of_tags_learns_by_is_the_experiment_s_own():
    config = load(SMALL)
    parts = {key.partition(".")[0] for key, *_ in differences(config, cam_experiment(config))}
    assert parts == {"name", "data", "schedule", "relations", "bank", "tracking"}
    config = load(SMALL, ["cam.lr=0.1"])
    assert cam_experiment(config).optimizer == config.optimizer.model_copy(update={"lr": 0.1})


@pytest.mark.parametrize(
    "overrides",
    [
        ["schedule.policy=step", "schedule.power=null", "schedule.decays=[100]"],
        ["schedule.steps=5000", "schedule.warmup=4000", "cam.steps=10"],
        ["bank.encoder_momentum=0.9", "bank.warmup=300"],
        ["bank.storage=bfloat16", "bank.max_age=9", "bank.own_images=true", "bank.gpu_index=true"],
        ["relations.feature_affinity.weight=1", "relations.feature_affinity.scope=global"],
        ["relations.annotation.weight=0", "loss.reduction=per_rank", "loss.cross_entropy=0"],
    ],
)
def test_no_experiment_is_refused_because_of_what_its_classifier_does_not_use(overrides):
    config = cam_experiment(load(SMALL, overrides))
    assert config.schedule.warmup < config.schedule.steps == config.cam.steps
    assert config.loss.reduction == "global"


def test_where_classes_change_places_no_maps_of_mirrored_images_are_made():
    assert cam_experiment(load(SMALL)).cam.mirror
    config = cam_experiment(load(SMALL, ["stream.mirror_swaps=[[1,2]]"]))
    assert config.stream.mirror_swaps == ((1, 2),) and not config.cam.mirror
