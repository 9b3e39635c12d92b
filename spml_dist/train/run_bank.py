"""The bank of a run: which one, what it is asked, and what a step leaves in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from spml_dist.bank import rows as bank_rows
from spml_dist.bank.recent import RecentBank
from spml_dist.bank.search.faiss_index import require_gpu
from spml_dist.bank.search.filters import Kind
from spml_dist.bank.sharded import Asks, ShardedBank
from spml_dist.config import Config
from spml_dist.method.segments import prototypes_by
from spml_dist.method.step import StepLosses
from spml_dist.records import BankCandidates, Batch, Candidates
from spml_dist.tensor_records import concatenate
from spml_dist.train.momentum_encoder import SlowEncoder


def build(
    config: Config, classes: int, device: torch.device, names: Sequence[str] = ()
) -> RecentBank | ShardedBank:
    """An empty bank; a collective. names: of the classes.

    Raises RunError where FAISS is to search on a GPU and sees none.
    """
    if config.bank.candidates == "recent":
        return RecentBank(config.bank.steps)
    if config.bank.gpu_index and device.type != "cpu":
        require_gpu()
    dim, seed = config.model.embedding_dim, config.seed
    return ShardedBank(config.bank, dim, classes, asks(config), seed, device, names)


def asks(config: Config) -> Asks:
    """What the relations in use want to know of the bank.

    Feature affinity contrasts by class: an unlabelled segment's annotated neighbours, which give it its
    class, are its candidates too.
    """
    relations, kinds = config.relations, list[Kind]()
    if relations.cooccurrence.weight:
        kinds += ["shares_tag", "shares_none"]
    if relations.annotation.weight or relations.feature_affinity.weight:
        kinds += ["same_class", "other_class"]
    votes = relations.feature_affinity.weight > 0 and relations.feature_affinity.scope == "global"
    return Asks(tuple(kinds), votes, relations.cooccurrence.ignore_classes)


def recall(
    bank: RecentBank | ShardedBank, step: int, measure: bool
) -> Callable[[Candidates], BankCandidates]:
    """How a step asks the bank. step: counted from 0; measure: whether it will be logged."""
    if isinstance(bank, RecentBank):
        return bank.recall
    return lambda rows: bank.recall(rows, step, measure)


def reembedded(
    encoder: SlowEncoder, batches: Sequence[Batch], parts: Sequence[StepLosses]
) -> list[StepLosses]:
    """A step's parts with the momentum encoder's vectors as prototypes of their segments, for `publish`; a
    collective."""
    return [_reembedded(encoder, batch, part) for batch, part in zip(batches, parts, strict=True)]


def _reembedded(encoder: SlowEncoder, batch: Batch, part: StepLosses) -> StepLosses:
    if part.own is None:
        return part
    own, segments = part.own, part.own.segments
    raw = encoder.embed(batch.image)
    vectors = prototypes_by(raw, batch.semantic, own.pixels.segment, len(segments))
    return replace(part, own=replace(own, segments=replace(segments, prototype=vectors)))


def publish(
    bank: RecentBank | ShardedBank, batches: Sequence[Batch], parts: Sequence[StepLosses], step: int
) -> None:
    """Leave a step's segments, of all its micro-batches, in the bank; a collective."""
    parts = [(batch, part) for batch, part in zip(batches, parts, strict=True) if part.rows is not None]
    if not parts:
        return
    if isinstance(bank, RecentBank):
        bank.publish(concatenate([part.rows for _, part in parts]))
        return
    own = [
        bank_rows.of_segments(
            part.own.segments,
            batch,
            part.own.propagated,
            part.own.confidence,
            step,
            bank.settings.storage,
        )
        for batch, part in parts
    ]
    bank.publish(concatenate(own), [key for batch, _ in parts for key in batch.keys])


def report(bank: RecentBank | ShardedBank, step: int) -> dict[str, float]:
    """What the log says of the bank; a collective. step: steps made so far."""
    return {"bank/rows": len(bank)} if isinstance(bank, RecentBank) else bank.report(step)
