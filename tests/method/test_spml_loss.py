"""The loss for a loop of one's own: the trainer's, and that of a slow formula."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from spml_dist import comm
from spml_dist.config import Config, load
from spml_dist.method.relational_loss import RELATIONS, RelationalLoss
from spml_dist.method.spml_loss import SPMLLoss
from spml_dist.method.step import losses
from spml_dist.records import UNLABELLED
from tests.method.test_step import CLASSES, WEIGHTS, World, assert_near, configured, example, reference
from tests.remembering import remembering
from tests.spawn import spawn

SCRIBBLE = Path(__file__).parents[2] / "configs" / "voc12_scribble.yaml"
VARIANTS = {
    "all relations": {},
    "nearest in the own image": {"scope": "image"},
    "mean of the ranks": {"reduction": "per_rank"},
    "the reference's tagless images": {"tagless": "reference"},
    **{f"{term} alone": dict.fromkeys(WEIGHTS, 0.0) | {term: 1.0} for term in RELATIONS},
}


def options(config: Config) -> Iterator[tuple[str, object]]:
    """Every argument by its name in the configuration."""
    for relation, section in config.relations:
        yield from ((f"{relation}_{name}", value) for name, value in section)
    yield from ((name, value) for name, value in config.segments if name != "colour")
    yield from ((name, value) for name, value in config.loss if name != "cross_entropy")


def contrasted(world: World, config: Config, with_bank: bool = True) -> tuple[RelationalLoss, torch.Tensor]:
    """What the loss gives for a rank's part of a batch, and the gradient to its embeddings."""
    criterion, batch = SPMLLoss(**dict(options(config))), world.batch
    raw = world.raw.clone().requires_grad_()
    segments = criterion.segments(
        raw, batch.semantic, batch.regions, batch.tags, batch.tags_known, batch.keys
    )
    bank = remembering(world.remembered)
    output = criterion.contrast(segments, bank.candidates(segments.candidates, 0) if with_bank else None)
    output.loss.backward()
    return output, raw.grad


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_the_trainer_s_step_to_the_bit(variant):
    """Loss, values, gradient, counts, and what a bank is given, beside the bank's candidates."""
    config = configured(**{"cross_entropy": 0.0} | VARIANTS[variant])
    ours, grad = contrasted(example(), config)
    world = example()
    raw = world.raw.requires_grad_()
    step = losses(raw, world.logits, world.batch, remembering(world.remembered), 0, config)
    step.total.backward()
    assert torch.equal(ours.loss, step.total) and torch.equal(grad, raw.grad)
    assert torch.equal(torch.stack(list(ours.values.values())), step.values[:-1])
    assert torch.equal(torch.stack(list(ours.without_positive.values())), step.without_positive)
    assert torch.equal(ours.segments.propagated, step.segments.propagated)
    for name, value in vars(ours.segments.candidates).items():
        assert torch.equal(value, getattr(step.segments.candidates, name)), name


@pytest.mark.parametrize("steps", [0, 2])
def test_it_is_the_slow_formula(steps):
    config = configured(cross_entropy=0.0)
    values, raw_grad, _ = reference(example(steps=steps), config, 1)
    ours, grad = contrasted(example(steps=steps), config)
    assert list(ours.values) == list(RELATIONS)
    assert_near(torch.stack(list(ours.values.values())), torch.tensor([values[term] for term in RELATIONS]))
    assert_near(ours.loss.detach(), sum(torch.tensor(WEIGHTS[term] * values[term]) for term in RELATIONS))
    assert_near(grad, raw_grad)


def on_a_rank(rank: int) -> dict:
    output, grad = contrasted(example().part(rank, comm.world()), configured())
    return {"values": torch.stack(list(output.values.values())), "grad": grad / comm.world()}


def test_two_ranks_are_one():
    ours, alone = spawn(on_a_rank, 2), on_a_rank(0)
    assert_near(sum(one["values"] for one in ours), alone["values"])
    assert_near(torch.cat([one["grad"] for one in ours]), alone["grad"])


class TestDefaults:
    def test_are_the_published_ones(self):
        arguments = inspect.signature(SPMLLoss).parameters
        assert {
            name: each.default for name, each in arguments.items() if name not in ("classes", "seed")
        } == dict(options(load(SCRIBBLE)))
        assert all(each.kind is each.KEYWORD_ONLY for each in arguments.values())

    def test_one_call_does(self):
        world = example(steps=0)
        output = SPMLLoss()(world.raw, world.batch.semantic, world.batch.regions, world.batch.tags)
        assert torch.isfinite(output.loss) and output.values["annotation"] > 0 < output.values["cooccurrence"]

    def test_without_bank_is_with_an_empty_one(self):
        config = configured()
        with_empty, without = (contrasted(example(steps=0), config, bank)[0] for bank in (True, False))
        assert torch.equal(with_empty.loss, without.loss)


class TestWhatIsNotGiven:
    def test_without_regions_an_image_is_one(self):
        world = example(steps=0)
        output = SPMLLoss(grid=(2, 2))(world.raw, world.batch.semantic)
        assert (output.segments.segments.region == 0).all() and output.values["image_similarity"] == 0

    def test_without_tags_none_is_known(self):
        world = example(steps=0)
        for classes in (None, CLASSES):
            output = SPMLLoss(classes=classes)(world.raw, world.batch.semantic)
            assert output.values["cooccurrence"] == 0 < output.values["annotation"]
            assert not output.segments.images.tags_known.any()

    def test_tags_of_some_images_may_be_unknown(self):
        world = example(steps=0)
        batch, known = world.batch, torch.zeros(len(world.batch)).bool()
        by_tags = SPMLLoss()(world.raw, batch.semantic, None, batch.tags, batch.tags_known)
        without = SPMLLoss()(world.raw, batch.semantic, None, batch.tags, known)
        assert by_tags.values["cooccurrence"] > 0 == without.values["cooccurrence"]

    def test_without_labels_the_other_relations_are_left(self):
        world = example(steps=0)
        labels = torch.full_like(world.batch.semantic, UNLABELLED)
        output = SPMLLoss()(world.raw, labels, world.batch.regions, world.batch.tags)
        assert output.values["annotation"] == 0 < output.values["cooccurrence"]


@pytest.mark.parametrize("wrong", ["labels", "tags", "tags_known", "keys"])
def test_sizes_that_do_not_fit_are_named(wrong):
    world = example(steps=0)
    given = {"labels": world.batch.semantic, "tags": world.batch.tags, "tags_known": world.batch.tags_known}
    given["keys"] = world.batch.keys
    given[wrong] = given[wrong][:-1]
    with pytest.raises(ValueError, match=f"{wrong} are of 4 images, the embeddings of 5"):
        SPMLLoss().segments(world.raw, **given)


@pytest.mark.parametrize(("label", "span"), [(-100, "-100 to 254"), (300, "0 to 300")])
def test_labels_that_mean_nothing_are_named(label, span):
    world = example(steps=0)
    labels = world.batch.semantic.long().clamp(max=UNLABELLED)
    labels.view(-1)[:2] = torch.tensor([label, UNLABELLED])
    with pytest.raises(ValueError, match=f"labels are {span}: "):
        SPMLLoss().segments(world.raw, labels)


def test_values_that_the_configuration_refuses_are_refused():
    with pytest.raises(ValueError, match=r"annotation.concentration"):
        SPMLLoss(annotation_concentration=41)


def test_an_embedding_learns_by_it():
    """Pixels of one class come together, those of two classes part."""
    labels = torch.tensor([0, 0, 1, 1]).repeat(2, 4, 1).to(torch.uint8)
    embedding = nn.Parameter(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    criterion = SPMLLoss(grid=(2, 2), image_similarity_weight=0)
    optimizer = torch.optim.SGD([embedding], lr=1.0)
    history = []
    for _ in range(30):
        optimizer.zero_grad()
        output = criterion(embedding, labels)
        output.loss.backward()
        optimizer.step()
        history.append(output.loss.item())
    assert history[-1] < 0.2 * history[0]


def test_a_bank_is_asked_between_segments_and_loss():
    """Its rows change the loss and have no gradient."""
    config = configured()
    world = example()
    for rows in world.remembered:
        rows.prototype.requires_grad_()
    with_bank, without = contrasted(world, config)[0], contrasted(replace(world, remembered=[]), config)[0]
    assert with_bank.values["annotation"] != without.values["annotation"]
    assert all(rows.prototype.grad is None for rows in world.remembered)
