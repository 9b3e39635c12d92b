"""Every shipped experiment loads and takes a step, shrunk to seconds: one process, no DeepSpeed, no data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spml_dist import cli
from spml_dist.config import Config, load
from spml_dist.data.format.manifest import read_manifest
from spml_dist.method.step import RELATIONS, TERMS, losses
from spml_dist.model.segmenter import build
from spml_dist.records import IGNORED, UNLABELLED, Batch
from spml_dist.training import run_bank
from spml_dist.training.build import training_stream
from spml_dist.training.step_summary import weight

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
IMAGES, CROP, CLASSES = 3, 64, 20
SHRUNK = (
    "model.backbone=resnet10t",
    "model.weights=null",
    "model.pretrained=false",
    "model.embedding_dim=8",
    f"stream.batch={IMAGES}",
    f"stream.crop={CROP}",
    "engine.workers=1",
    "engine.accumulation=1",
)

# image similarity, annotation, co-occurrence, feature affinity: weight and concentration (SPML release)
RELEASED = {
    "voc12_tag": ((0.1, 16), (0.3, 6), (0.3, 8), None),
    "voc12_box": ((0.1, 16), (0.3, 6), (0.3, 8), None),
    "voc12_scribble": ((0.1, 16), (1.0, 6), (0.5, 12), None),
    "voc12_point": ((0.1, 16), (0.1, 6), (0.1, 8), None),
    "densepose_point": ((0.1, 16), (1.0, 6), None, (0.5, 12)),
}


def batch(seed: int) -> Batch:
    """Colours at random, a few labelled patches, two contour regions, a tag each."""
    generator = torch.Generator().manual_seed(seed)
    semantic = torch.full((IMAGES, CROP, CROP), UNLABELLED, dtype=torch.uint8)
    for number in range(4):
        rows = slice(16 * number, 16 * number + 8)
        semantic[:, rows, :32] = torch.randint(0, 4, (IMAGES, 1, 1), generator=generator).to(torch.uint8)
    semantic[0, -8:] = IGNORED
    tags = torch.zeros(IMAGES, CLASSES, dtype=torch.bool)
    tags[torch.arange(IMAGES), torch.tensor([4, 5, 4])] = True
    return Batch(
        keys=tuple(f"{seed}/{image}" for image in range(IMAGES)),
        position=torch.arange(IMAGES),
        image=torch.randn(IMAGES, 3, CROP, CROP, generator=generator),
        semantic=semantic,
        regions=(torch.arange(CROP) // 32).expand(IMAGES, CROP, CROP).int(),
        tags=tags,
        tags_known=torch.ones(IMAGES, dtype=torch.bool),
        window=torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(IMAGES, 4),
        epoch=0,
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shrunk_step_has_every_term_and_its_gradient_reaches_the_network(name):
    config = load(CONFIGS / f"{name}.yaml", SHRUNK)
    model = build(config.model, CLASSES, config.seed).train()
    bank, values = run_bank.build(config, CLASSES, torch.device("cpu")), []
    for step in range(2):
        now = batch(step)
        raw, logits = model(now.image, [step] * IMAGES)
        raw.retain_grad()
        result = losses(raw, logits, now, bank, step, config)
        model.zero_grad()
        result.total.backward()
        bank.publish([result.segments], step)
        values.append(result.values)
        assert torch.isfinite(result.total) and (raw.grad != 0).any() and torch.isfinite(raw.grad).all()
    for term, value in zip(TERMS, values[-1].tolist(), strict=True):
        assert (value > 0) == (weight(config, term) > 0), term
    for parameter in (*model.head.parameters(), *model.classifier.parameters()):
        assert torch.isfinite(parameter.grad).all()
    assert any((parameter.grad != 0).any() for parameter in model.head.parameters())
    backbone = list(model.backbone.parameters())
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in backbone)
    assert any((parameter.grad != 0).any() for parameter in backbone if parameter.requires_grad)
    remembers = config.bank.candidates != "recent" or config.bank.steps > 0
    assert (result.candidates > len(result.segments.candidates)) == remembers


def released(name: str) -> Config:
    return load(CONFIGS / f"{name}.yaml")


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_experiment_has_the_released_weights_and_concentrations(name):
    config = released(name)
    for term, expected in zip(RELATIONS, RELEASED[name], strict=True):
        relation = getattr(config.relations, term)
        assert (relation.weight, relation.concentration) == expected if expected else relation.weight == 0
    assert config.loss.cross_entropy == config.relations.annotation.weight


@pytest.mark.parametrize("name", RELEASED)
def test_what_all_released_experiments_share(name):
    config = released(name)
    assert (config.model.backbone, config.model.output_stride) == ("resnet101s", 8)
    assert config.model.frozen == ("conv1", "bn1", "layer1") and config.model.norm_momentum == 3e-4
    assert (config.stream.batch, config.stream.crop, config.stream.scale) == (16, 512, (0.5, 1.5))
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (3e-3, 5e-4)
    assert config.optimizer.momentum == 0.9
    assert (config.optimizer.head_multiplier, config.optimizer.bias_multiplier) == (10, 2)
    assert (config.schedule.policy, config.schedule.power, config.schedule.warmup) == ("poly", 0.9, 100)
    assert config.segments.iterations == config.evaluation.iterations == 10
    assert config.evaluation.neighbours == 20


@pytest.mark.parametrize("name", [name for name in RELEASED if name.startswith("voc12")])
def test_voc(name):
    config = released(name)
    assert (config.model.head, config.model.dilations) == ("deeplab", (6, 12, 18, 24))
    assert (config.model.embedding_dim, config.schedule.steps, config.bank.steps) == (64, 30000, 2)
    assert (config.segments.grid, config.evaluation.grid) == ((6, 6), (12, 12))
    assert config.evaluation.longer_side == 512
    assert (config.segments.colour, config.segments.embedding_scale) == ("none", 1)
    assert config.relations.image_similarity.local_features and not config.stream.mirror_swaps


def test_densepose():
    config = released("densepose_point")
    assert (config.model.head, config.model.embedding_dim) == ("pspnet", 32)
    assert (config.schedule.steps, config.bank.steps) == (45000, 0)
    assert (config.segments.grid, config.evaluation.grid) == ((12, 12), (24, 24))
    assert config.evaluation.longer_side == 640
    assert (config.segments.colour, config.segments.embedding_scale) == ("cone", 0.1)
    assert not config.relations.image_similarity.local_features
    affinity = config.relations.feature_affinity
    assert (affinity.scope, affinity.min_similarity, affinity.local_features) == ("image", 0.95, True)
    assert config.stream.mirror_swaps == ((2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13))


def test_classes_that_change_places_do_so_in_the_stream_of_a_training(experiment, tmp_path):
    words = experiment(tmp_path, "swaps", "relations.cooccurrence.weight=0", "stream.scale=[1.0, 1.0]")
    plain, swapped = (
        next(iter(training_stream(load(words[0], [*words[1:], f"stream.mirror_swaps={pairs}"]), manifest)))
        for manifest in [read_manifest(load(words[0], words[1:]).data.train)]
        for pairs in ("[]", "[[0, 1]]")
    )
    assert torch.equal(plain.image, swapped.image) and torch.equal(plain.regions, swapped.regions)
    changed = (plain.semantic != swapped.semantic).flatten(1).any(dim=1)
    exchanged = plain.semantic.clone()
    exchanged[plain.semantic == 0], exchanged[plain.semantic == 1] = 1, 0
    assert torch.equal(swapped.semantic[changed], exchanged[changed]) and 0 < changed.sum() < len(changed)


def test_classes_that_change_places_are_classes_of_the_data(experiment, tmp_path, capsys):
    changes = ("relations.cooccurrence.weight=0", "stream.mirror_swaps=[[1, 30]]")
    assert cli.main(["train", *experiment(tmp_path / "runs", "swaps", *changes)]) == 2
    assert "stream.mirror_swaps names no class of data.train (got [30])" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
