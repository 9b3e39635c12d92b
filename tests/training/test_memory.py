"""The bank of a run: what goes in and comes out; what a machine cannot hold is refused at the start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spml_dist.bank.sharded import LookupPlan
from spml_dist.config import load
from spml_dist.errors import RunError
from spml_dist.hashing import image_hash
from spml_dist.method.step import losses
from spml_dist.tensor_records import take
from spml_dist.training import run_bank
from tests.method.test_step import CHANNELS, CLASSES, configured, example

SMALL = Path(__file__).parents[1] / "small.yaml"


@pytest.mark.parametrize(
    ("annotation", "cooccurrence", "feature_affinity", "kinds"),
    [
        (1, 1, 0, ("shares_tag", "shares_none", "same_class", "other_class")),
        (1, 0, 0, ("same_class", "other_class")),
        (0, 0, 1, ("same_class", "other_class")),
        (0, 1, 0, ("shares_tag", "shares_none")),
        (0, 0, 0, ()),
    ],
)
def test_only_what_a_relation_needs_is_asked(annotation, cooccurrence, feature_affinity, kinds):
    weights = dict(annotation=annotation, cooccurrence=cooccurrence, feature_affinity=feature_affinity)
    changes = [f"relations.{name}.weight={weight}" for name, weight in weights.items()]
    for scope in ("batch", "global"):
        scoped = f"relations.feature_affinity.scope={scope}"
        outcome = run_bank.lookup_plan(
            load(SMALL, [*changes, scoped, "relations.cooccurrence.ignore_classes=[2]"])
        )
        votes = scope == "global" and feature_affinity > 0
        assert outcome == LookupPlan(kinds, votes, ignore_classes=(2,))


def test_a_step_leaves_its_segments_with_its_number_and_their_keys():
    config = configured(changed=[f"model.embedding_dim={CHANNELS}"])
    bank = run_bank.build(config, CLASSES, torch.device("cpu"))
    parts = [example(counts=(2,), seed=seed, steps=0) for seed in (0, 1)]
    batches = [replace(part.batch, keys=[f"{at} a", f"{at} b"]) for at, part in enumerate(parts)]
    made = [
        losses(part.raw, part.logits, batch, bank, 7, config).segments
        for part, batch in zip(parts, batches, strict=True)
    ]
    bank.publish(made, step=7)
    bank.settle()
    rows = take(bank.store.rows, bank.store.live())
    assert (rows.step == 7).all() and len(rows) == sum(len(each.segments) for each in made)
    assert set(rows.image.tolist()) == set(image_hash(["0 a", "0 b", "1 a", "1 b"]).tolist())


def test_an_index_on_a_gpu_that_faiss_does_not_see_is_refused():
    config = load(SMALL, ["bank.gpu_index=true"])
    with pytest.raises(RunError, match="FAISS sees no GPU"):
        run_bank.build(config, 3, torch.device("cuda", 0))


def test_on_a_cpu_the_same_configuration_searches_the_file_in_main_memory():
    bank = run_bank.build(load(SMALL, ["bank.gpu_index=true"]), 3, torch.device("cpu"))
    assert bank.indexes and len(bank) == 0
