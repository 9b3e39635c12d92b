"""What becomes of an experiment when a classifier is trained on its embedding."""

from __future__ import annotations

from pathlib import Path

import pytest

from spml_dist.config import Config, differences, dump, load
from spml_dist.config.classifier import classifier_experiment
from spml_dist.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))
FOLDER, EMBEDDING = Path("/runs/mine/stages/s1"), Path("/runs/mine/export")


def stage(config: Config, labels: str | None = None) -> Config:
    return classifier_experiment(config, FOLDER, EMBEDDING, config.model, labels)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_experiment_has_one_that_is_written_and_read_alike(path: Path, tmp_path):
    config = stage(load(path))
    assert (config.output, config.name, config.model.embedding) == (
        "/runs/mine/stages",
        "s1",
        str(EMBEDDING),
    )
    (tmp_path / "config.yaml").write_text(dump(config))
    assert load(tmp_path / "config.yaml") == config


def test_without_further_words_it_has_the_released_numbers():
    config = stage(load(CONFIGS / "voc12_scribble.yaml"))
    schedule, stream, optimizer = config.schedule, config.stream, config.optimizer
    assert (schedule.steps, schedule.warmup, schedule.power, stream.batch) == (4000, 100, 0.9, 16)
    assert (config.model.classifier_dropout, stream.scale) == (0.65, (0.5, 2.0))
    assert (stream.grey, stream.blur, stream.crop) == (0.3, 0.5, 512)
    # 3e-3, which the release multiplies by ten for a classifier.
    assert optimizer.lr * optimizer.head_multiplier == pytest.approx(0.03)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 5e-4)


def test_labels_and_rates_are_its_own_and_everything_else_is_the_experiment_s():
    config = load(CONFIGS / "quickstart.yaml")
    own = stage(config, "/labels")
    assert own.data.train == "/labels" and own.data.val == config.data.val
    parts = {key.partition(".")[0] for key, *_ in differences(config, own)}
    assert parts == {
        *("name", "output", "data", "model", "stream", "optimizer", "schedule"),
        *("relations", "bank"),
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ["schedule.policy=step", "schedule.power=null", "schedule.decays=[100]"],
        ["classifier.steps=10", "classifier.warmup=4000"],
        ["bank.encoder_momentum=0.9", "bank.warmup=300"],
        ["model.pretrained=true", "model.frozen=[conv1]", "model.classifier_detached=false"],
        ["relations.feature_affinity.weight=1", "relations.feature_affinity.scope=global"],
        ["relations.annotation.weight=0", "loss.reduction=per_rank", "loss.cross_entropy=0"],
    ],
)
def test_no_experiment_is_refused_because_of_what_its_classifier_does_not_use(overrides):
    config = stage(load(CONFIGS / "quickstart.yaml", overrides))
    assert config.schedule.warmup < config.schedule.steps == config.classifier.steps
    assert config.loss.reduction == "global" and config.loss.cross_entropy == 1


def test_an_embedding_that_never_changes_learns_from_no_relation():
    with pytest.raises(ConfigError, match=r"relations.image_similarity.weight .* set it to 0"):
        load(CONFIGS / "quickstart.yaml", ["model.embedding=/runs/mine/export"])
