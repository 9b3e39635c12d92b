"""A step's losses over the sharded bank: the dense formula over all rows, whoever holds them."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.bank.rows import as_candidates
from spml_dist.bank.sharded import ShardedBank
from spml_dist.config import Config
from spml_dist.hashing import image_hash
from spml_dist.method.step import TERMS, StepLosses, losses
from spml_dist.records import BankCandidates, BankCounts, BankRows, Candidates
from spml_dist.tensor_records import take
from spml_dist.training import run_bank
from tests.bank.builders import rows_of
from tests.method.test_step import CHANNELS, CLASSES, assert_near, configured, example, reference
from tests.spawn import spawn

STEP = 5
DIM = f"model.embedding_dim={CHANNELS}"
COUNTED = torch.tensor([True, True, True, False])
"""relations.cooccurrence.ignore_classes is [3]"""
OLD = ["old a", "old b", "old c", "old d", "1", "3"]
"""images that the bank remembers; the last two are in the batch"""
SEGMENTS = [4, 3, 5, 2, 3, 4]

CASES = {
    "all rows": {},
    "without the batch's own images": {"own_images": "false"},
    "more partitions than images": {"partitions": 64},
    "three partitions, one of them empty": {"partitions": 3, "capacity": 60, "keys": 2},
    "a class without rows": {"missing": 2},
    "nothing annotated": {"missing": -1},
    "an empty bank": {"keys": 0},
    "one image": {"keys": 1},
    "nearest in the bank": {"scope": "global"},
    "a rank without images": {"counts": (3, 0, 2), "scope": "global"},
    "a rank without valid pixels": {"counts": (2, 1, 2), "ignored": (2, 3, 4)},
    "pixels and tags, tags alone, nothing": {"unlabelled": (1, 3), "scope": "global"},
    "in float64": {"dtype": torch.float64, "scope": "global"},
    "in float64 throughout": {"dtype": torch.float64, "scope": "global", "image_similarity": 0.0},
}


def configured_for(
    candidates: str = "exact", scope: str = "batch", image_similarity: float = 0.2, **bank
) -> Config:
    bank = {"own_images": "true", "partitions": 7, "capacity": 7000, "neighbours": 50} | bank
    changes = [f"bank.candidates={candidates}", *(f"bank.{key}={value}" for key, value in bank.items())]
    return configured(scope=scope, changed=[DIM, *changes], image_similarity=image_similarity)


def settings_of(case: dict) -> tuple[Config, dict, dict]:
    """Configuration, what the batch is made of, what the bank holds."""
    bank = {key: value for key, value in case.items() if key in ("own_images", "partitions", "capacity")}
    world = {key: value for key, value in case.items() if key in ("counts", "ignored", "unlabelled")}
    held = {key: value for key, value in case.items() if key in ("missing", "keys")}
    changes = {key: value for key, value in case.items() if key in ("scope", "image_similarity")}
    return configured_for(**changes, **bank), world, held


def old_rows(keys: int = len(OLD), missing: int | None = None) -> BankRows:
    """What the bank holds; missing: a class that no row has, -1 for no row with any."""
    rows = rows_of(OLD[:keys], SEGMENTS[:keys], step=STEP - 1, seed=3, dim=CHANNELS, classes=CLASSES)
    if missing is not None:
        gone = rows.label == missing if missing >= 0 else rows.label >= 0
        rows.label[gone], rows.source[gone] = -1, 0
    return rows


def filled(config: Config, rows: BankRows) -> ShardedBank:
    """A bank that was given the rows, every image by one rank."""
    bank = run_bank.build(config, CLASSES, torch.device("cpu"))
    publishers = torch.unique(rows.image, return_inverse=True)[1] % comm.world()
    bank.add(take(rows, publishers == comm.rank()), OLD)
    return bank


def stepped(config: Config, world, rows: BankRows, dtype=torch.float32, step: int = STEP) -> dict:
    mine = world.part(comm.rank(), comm.world())
    raw, logits = (v.to(dtype).requires_grad_() for v in (mine.raw, mine.logits))
    result = losses(raw, logits, mine.batch, filled(config, rows), step, config)
    result.total.backward()
    return {
        "values": result.values,
        "grad": raw.grad / comm.world(),
        "candidates": result.candidates,
        "propagated": result.segments.candidates.propagated,
    }


def observe(rank: int) -> dict:
    seen = {}
    for name, case in CASES.items():
        config, world, held = settings_of(case)
        dtype = case.get("dtype", torch.float32)
        seen[name] = stepped(config, example(**world, steps=0), old_rows(**held), dtype)
    return seen


@cache
def dense_formula(name: str) -> tuple[dict[str, float], Tensor, Tensor]:
    """Over all images and rows at once: the global reduction knows no ranks."""
    config, parts, held = settings_of(CASES[name])
    world, rows = example(**parts, steps=0), old_rows(**held)
    if CASES[name].get("own_images") == "false":
        rows = take(rows, ~torch.isin(rows.image, image_hash(world.batch.keys)))
    world.remembered = [as_candidates(rows, CLASSES, torch.float64)]
    return reference(world, config, 1)


@pytest.fixture(scope="module", params=[1, 2, 3])
def ranks(request) -> list[dict]:
    return [observe(0)] if request.param == 1 else spawn(observe, request.param)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_dense_formula(ranks, name):
    """All four relations and the cross-entropy, over every row of the bank."""
    case = CASES[name]
    values, raw_grad, _ = dense_formula(name)
    ours, wanted = (
        sum(one[name]["values"] for one in ranks),
        torch.tensor([values[term] for term in TERMS], dtype=torch.float64),
    )
    grad = torch.cat([one[name]["grad"] for one in ranks])
    if case.get("dtype") == torch.float64:
        # Coordinates are made in float32, which image similarity alone has in it.
        torch.testing.assert_close(ours[1:], wanted[1:], rtol=1e-12, atol=1e-12)
    if case.get("image_similarity") == 0:  # and is not computed at all
        torch.testing.assert_close(grad, raw_grad, rtol=1e-12, atol=1e-13)
        wanted[0] = 0
    assert_near(ours, wanted)
    assert_near(grad, raw_grad)


def test_the_bank_passes_its_classes_on_and_the_own_image_does_not(ranks):
    """In scope global an unlabelled segment may take the class of a remembered one of another image."""
    batch_only = stepped(configured_for(scope="batch"), example(steps=0), old_rows())["propagated"]
    for one in ranks:
        assert torch.equal(
            one["nearest in the bank"]["propagated"], ranks[0]["nearest in the bank"]["propagated"]
        )
    assert not torch.equal(ranks[0]["nearest in the bank"]["propagated"], batch_only)


def test_what_attracts_in_the_bank_counts_though_no_candidate_does():
    """A pixel that other rows of the bank attract is not left to its own segment."""
    config, world = configured_for("nearest+sampled", scope="global"), example(counts=(1,), steps=0)
    nobody = as_candidates(old_rows(0), CLASSES, torch.float32)

    def outcome(rows: int | None) -> StepLosses:
        def candidates(ours: Candidates, step: int, measure: bool) -> BankCandidates:
            by = torch.full((CLASSES,), rows or 0), torch.full((CLASSES,), rows or 0)
            counts = BankCounts(*by, torch.full((len(ours),), rows or 0))
            return BankCandidates(nobody, torch.zeros(0), None if rows is None else counts)

        bank = SimpleNamespace(candidates=candidates)
        return losses(world.raw, world.logits, world.batch, bank, STEP, config)

    alone, none, many = outcome(None), outcome(0), outcome(9)
    assert torch.equal(alone.values, none.values)
    for term in ("annotation", "feature_affinity"):
        at = TERMS.index(term)
        assert none.values[at] > many.values[at] >= 0
        assert none.without_positive[at] > 0 == many.without_positive[at]
    assert torch.equal(none.values[[0, 4]], many.values[[0, 4]])


class TestSampled:
    """nearest+sampled: estimates of the exact sums, and exact counts."""

    DRAWS = 400

    @pytest.fixture(scope="class")
    def many(self) -> BankRows:
        """Rows of 60 images, none of which is in the batch."""
        return rows_of([f"old {i}" for i in range(60)], [5] * 60, seed=9, dim=CHANNELS, classes=CLASSES)

    @pytest.fixture(scope="class")
    def drawn(self, many) -> list[tuple[Tensor, Tensor]]:
        """Sums over attracting and repelling rows for each query of a step, exactly and by each draw."""
        config = configured_for("nearest+sampled", neighbours=2, max_candidates=20, sampled=60)
        bank = run_bank.build(config, CLASSES, torch.device("cpu"))
        bank.add(many, [f"old {i}" for i in range(60)])
        ours = as_candidates(
            rows_of(["x", "y"], [4, 4], seed=1, dim=CHANNELS, classes=CLASSES), CLASSES, torch.float64
        )
        draws = []
        for step in range(1, self.DRAWS + 1):
            answer = bank.candidates(ours, step)
            draws.append(sums(ours, answer.rows, answer.log_weight.double().exp()))
        exact = sums(ours, as_candidates(many, CLASSES, torch.float64), torch.ones(len(many)).double())
        return exact, torch.stack(draws)

    def test_the_sums_are_unbiased(self, drawn):
        """Within three standard errors of the mean over many draws, for every query and both relations."""
        exact, draws = drawn
        error = (draws.mean(dim=0) - exact).abs()
        standard = draws.std(dim=0) / self.DRAWS**0.5
        varying = standard > 1e-12
        assert torch.equal(varying, exact > 0) and varying.sum() >= 15
        assert (error[varying] <= 3 * standard[varying]).all()

    def test_the_nearest_rows_alone_are_biased(self, drawn, many):
        exact, _ = drawn
        config = configured_for("nearest", neighbours=2, max_candidates=20)
        bank = run_bank.build(config, CLASSES, torch.device("cpu"))
        bank.add(many, [f"old {i}" for i in range(60)])
        ours = as_candidates(
            rows_of(["x", "y"], [4, 4], seed=1, dim=CHANNELS, classes=CLASSES), CLASSES, torch.float64
        )
        answer = bank.candidates(ours, 1)
        short = sums(ours, answer.rows, torch.ones(len(answer.rows)).double())
        assert (short[exact > 0] < 0.8 * exact[exact > 0]).float().mean() > 0.9

    def test_how_many_attract_a_pixel_is_counted_and_not_estimated(self, many):
        config = configured_for("nearest+sampled", neighbours=1, max_candidates=3, sampled=5)
        bank = run_bank.build(config, CLASSES, torch.device("cpu"))
        bank.add(many, [f"old {i}" for i in range(60)])
        queries = rows_of(["x", "y"], [4, 4], seed=1, dim=CHANNELS, classes=CLASSES)
        counts = bank.candidates(as_candidates(queries, CLASSES, torch.float32), 1).counts
        everything = as_candidates(many, CLASSES, torch.float32)
        asked = as_candidates(queries, CLASSES, torch.float32)
        shared = (asked.tags[:, None] & everything.tags & COUNTED).any(dim=2).sum(dim=1)
        assert counts.sharing.tolist() == shared.tolist()
        assert (
            counts.by_class.tolist() == torch.bincount(everything.semantic, minlength=255)[:CLASSES].tolist()
        )
        by_propagated = torch.bincount(everything.propagated, minlength=255)[:CLASSES]
        assert counts.by_propagated.tolist() == by_propagated.tolist()


def sums(ours: Candidates, rows: Candidates, weight: Tensor, kappa: float = 6.0) -> Tensor:
    """Σ weight · exp(κ cosine) over attracting and repelling rows, by class and by tags: [4, Q] of those that
    take part (others 0)."""
    s = torch.exp(kappa * (ours.prototype @ rows.prototype.T)) * weight
    same = (ours.semantic[:, None] == rows.semantic) & (ours.semantic < CLASSES)[:, None]
    other = (
        (ours.semantic[:, None] != rows.semantic)
        & (rows.semantic < CLASSES)
        & (ours.semantic < CLASSES)[:, None]
    )
    shared = (ours.tags[:, None] & rows.tags & COUNTED).any(dim=2)
    known = ours.tags_known[:, None] & rows.tags_known
    return torch.stack([(s * mask).sum(dim=1) for mask in (same, other, shared & known, ~shared & known)])
