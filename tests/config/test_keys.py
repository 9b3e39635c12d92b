"""The configuration's public surface: adding, removing or renaming a key is a decision, made here too."""

from __future__ import annotations

from pathlib import Path

import pytest

from spml_dist.config import flatten, load
from spml_dist.config.suggest import fields, remedy
from tests.conftest import SMALL

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))

KEYS = """
name
output
seed
data.train
data.val
data.test
model.backbone
model.weights
model.pretrained
model.output_stride
model.feature_level
model.head
model.dilations
model.embedding_dim
model.checkpointing
model.frozen
model.embedding
model.norm_momentum
model.classifier_dropout
model.classifier_detached
stream.batch
stream.crop
stream.scale
stream.mirror
stream.mirror_swaps
stream.grey
stream.blur
stream.window_shards
stream.loader_processes
stream.skip_corrupt
stream.retry_seconds
stream.cache
stream.cache_gb
segments.grid
segments.iterations
segments.colour
segments.embedding_scale
segments.labels
relations.image_similarity.weight
relations.image_similarity.concentration
relations.image_similarity.local_features
relations.annotation.weight
relations.annotation.concentration
relations.cooccurrence.weight
relations.cooccurrence.concentration
relations.cooccurrence.ignore_classes
relations.cooccurrence.own_image
relations.feature_affinity.weight
relations.feature_affinity.concentration
relations.feature_affinity.scope
relations.feature_affinity.min_similarity
relations.feature_affinity.neighbours
relations.feature_affinity.margin
relations.feature_affinity.local_features
loss.cross_entropy
loss.reduction
loss.pixels_per_segment
loss.fused
loss.products
loss.tagless
bank.candidates
bank.steps
bank.capacity
bank.partitions
bank.storage
bank.warmup
bank.max_age
bank.queries
bank.neighbours
bank.max_candidates
bank.sampled
bank.own_images
bank.exact_rows
bank.gpu_index
bank.min_recall
bank.encoder_momentum
optimizer.lr
optimizer.kind
optimizer.momentum
optimizer.second_momentum
optimizer.weight_decay
optimizer.decay_norms
optimizer.layer_decay
optimizer.clip_norm
optimizer.clip
optimizer.head_multiplier
optimizer.bias_multiplier
schedule.steps
schedule.policy
schedule.power
schedule.warmup
schedule.decays
engine.workers
engine.device
engine.zero_stage
engine.precision
engine.channels_last
engine.compile
engine.tf32
engine.deterministic
engine.accumulation
engine.micro_batches
engine.max_failures
engine.patience
engine.threads
checkpoint.every
checkpoint.keep
checkpoint.remote
tracking.uri
tracking.experiment
tracking.every
tracking.previews_every
tracking.previews
evaluation.grid
evaluation.iterations
evaluation.neighbours
evaluation.longer_side
evaluation.pictures
cam.steps
cam.lr
cam.scales
cam.mirror
cam.longer_side
cam.alpha
cam.foreground
cam.background
cam.box
labeling.steps
labeling.stride
labeling.concentration
labeling.sharpness
labeling.mirror
labeling.window
labeling.overlap
labeling.memory_mb
labeling.neighbours
labeling.index_scales
labeling.scales
labeling.floor
labeling.min_confidence
classifier.steps
classifier.batch
classifier.lr
classifier.warmup
classifier.power
classifier.dropout
classifier.scale
classifier.grey
classifier.blur
""".split()  # noqa: SIM905


def test_the_keys_are_these():
    assert list(flatten(load(SMALL))) == KEYS


@pytest.mark.parametrize("key", fields())
def test_every_key_has_a_sentence_and_says_what_it_takes(key: str):
    owner, name = fields()[key], key.rpartition(".")[2]
    sentence = owner.model_fields[name].description
    assert sentence and sentence.endswith(".") and sentence[0].isupper()
    assert remedy(key).startswith(("expected ", "allowed: "))


def test_the_shipped_experiments_are_these():
    shipped = {path.stem for path in SHIPPED}
    assert {"quickstart", "gid15_scribble", "ccp_scribble", "pennfudan_point", "densepose_point"} <= shipped
    assert {f"voc12_{weak}" for weak in ("tag", "box", "scribble", "point")} <= shipped


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_experiment_loads_whole_and_is_named_like_its_file(path: Path):
    config = load(path)
    assert config.name == path.stem
    assert list(flatten(config)) == KEYS


def test_voc_carries_the_released_numbers():
    config = load(CONFIGS / "voc12_scribble.yaml")
    relations = config.relations
    pairs = [(r.concentration, r.weight) for _, r in relations]
    assert pairs == [(16, 0.1), (6, 1.0), (12, 0.5), (12, 0)]
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.schedule.steps) == (3e-3, 5e-4, 30000)
    assert (config.stream.crop, config.stream.batch, config.bank.steps) == (512, 16, 2)
    assert config.segments.grid == (6, 6) and config.evaluation.grid == (12, 12)


@pytest.mark.parametrize(
    "name", [path.stem for path in SHIPPED if path.stem.startswith(("voc12", "densepose"))]
)
def test_a_released_experiment_remembers_the_last_steps_and_takes_the_nearest_label(name: str):
    config = load(CONFIGS / f"{name}.yaml")
    assert config.bank.candidates == "recent" and config.bank.encoder_momentum is None
    affinity = config.relations.feature_affinity
    assert (affinity.neighbours, affinity.margin) == (1, 0)


def test_the_quickstart_remembers_the_whole_data_set():
    assert load(SMALL).bank.candidates == "nearest+sampled"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("candidates", ["recent", "nearest+sampled", "nearest", "exact"])
def test_every_shipped_experiment_may_take_any_candidates(path: Path, candidates: str):
    assert load(path, [f"bank.candidates={candidates}"]).bank.candidates == candidates
