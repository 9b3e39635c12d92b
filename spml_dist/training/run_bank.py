"""The bank of a run: which one, and what the relations in use look up in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from spml_dist.bank.recent import RecentBank
from spml_dist.bank.search.faiss_index import require_gpu
from spml_dist.bank.search.filters import Kind
from spml_dist.bank.sharded import LookupPlan, ShardedBank
from spml_dist.config import Config
from spml_dist.method.segments import prototypes_by
from spml_dist.records import Batch, BatchSegments
from spml_dist.training.momentum_encoder import MomentumEncoder


def build(
    config: Config, classes: int, device: torch.device, names: Sequence[str] = ()
) -> RecentBank | ShardedBank:
    """An empty bank; a collective. names: of the classes.

    Raises RunError where FAISS is to search on a GPU and sees none.
    """
    if config.bank.candidates == "recent":
        return RecentBank(config.bank.steps, device)
    if config.bank.gpu_index and device.type != "cpu":
        require_gpu()
    dim, seed = config.model.embedding_dim, config.seed
    return ShardedBank(config.bank, dim, classes, lookup_plan(config), seed, device, names)


def lookup_plan(config: Config) -> LookupPlan:
    """What the relations in use look up in the bank.

    Feature affinity contrasts by class: an unlabelled segment's annotated neighbours, which give it its
    class, are its candidates too.
    """
    relations, kinds = config.relations, list[Kind]()
    if relations.cooccurrence.weight:
        kinds += ["shares_tag", "shares_none"]
    if relations.annotation.weight or relations.feature_affinity.weight:
        kinds += ["same_class", "other_class"]
    votes = relations.feature_affinity.weight > 0 and relations.feature_affinity.scope == "global"
    return LookupPlan(tuple(kinds), votes, relations.cooccurrence.ignore_classes)


def reembedded(encoder: MomentumEncoder, batch: Batch, part: BatchSegments) -> BatchSegments:
    """This rank's segments of a batch with the momentum encoder's vectors as prototypes; a collective."""
    raw = encoder.embed(batch.image)
    vectors = prototypes_by(raw, batch.semantic, part.pixels.segment, len(part.segments))
    return replace(part, segments=replace(part.segments, prototype=vectors))
