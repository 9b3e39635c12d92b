"""One training step's losses, from the network's output to a scalar. No Ray, no DeepSpeed, no state.

A batch flows through here in reading order: segments, exchange, the bank's candidates, relations, losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.config import Config
from spml_dist.method.batch_segments import exchange
from spml_dist.method.cell_labels import majority_labels
from spml_dist.method.colour import colours
from spml_dist.method.cross_entropy import cross_entropy
from spml_dist.method.location import location
from spml_dist.method.relational_loss import RELATIONS, relational_loss
from spml_dist.method.segments import resize_labels, segment
from spml_dist.records import IGNORED, Batch, BatchImages, BatchSegments, Pixels, SegmentBank, Segments

TERMS = (*RELATIONS, "cross_entropy")


@dataclass(frozen=True)
class StepLosses:
    """What a (micro-)batch came to on this rank."""

    total: Tensor
    """scalar with gradient, ready for a mean of gradients over the ranks"""
    values: Tensor
    """[5] this rank's share of each term, in the order of TERMS; they add up (or average) over ranks"""
    without_positive: Tensor
    """[4] pixels without any positive, in the order of RELATIONS"""
    pixels: int
    """valid pixels of this rank"""
    segments: BatchSegments | None
    """for the bank; None where no relation is in use"""
    candidates: int
    """segments that every pixel was contrasted with: this step's of all ranks, and the bank's"""


def losses(
    raw: Tensor,
    logits: Tensor,
    batch: Batch,
    bank: SegmentBank,
    step: int,
    config: Config,
    measure: bool = False,
    phase: Callable[[str], object] = lambda name: None,
    counts: Tensor | None = None,
) -> StepLosses:
    """All terms of a step; a collective.

    raw: [B, C, h, w] embedding; logits: [B, K, h, w] of the joint classifier; bank: gives
    candidates, once, if any relation is in use; step: counted from 0; measure: whether the bank measures
    itself, because the step will be logged; phase: called with the name of each ended phase, bank or loss;
    counts: `step_counts` of all the step's micro-batches, None where each is a mean of its own.
    """
    dtype = torch.promote_types(raw.dtype, torch.float32)
    values = raw.new_zeros(len(TERMS), dtype=dtype)
    without = torch.zeros(len(RELATIONS), dtype=torch.int64, device=raw.device)
    segments, candidates, total = None, 0, raw.sum() * 0

    if any(getattr(config.relations, term).weight for term in RELATIONS):
        segments = exchange(*segments_of(raw, batch, config), images_of(batch))
        phase("loss")
        from_bank = bank.candidates(segments.candidates, step, measure)
        phase("bank")
        settings = config.relations, config.loss, config.seed, step
        relations = relational_loss(segments, from_bank, *settings, counts=counts)
        segments, candidates = relations.segments, len(segments.candidates) + len(from_bank.rows)
        total = total + relations.loss
        values[:-1] = torch.stack(list(relations.values.values()))
        without = torch.stack(list(relations.without_positive.values()))
    if config.loss.cross_entropy:
        entropy = _cross_entropy(logits, batch, config.loss.reduction, counts)
        share = comm.world() if config.loss.reduction == "global" else 1
        total = total + config.loss.cross_entropy * entropy * share
        values[-1] = entropy.detach()
    phase("loss")
    pixels = len(segments.pixels.segment) if segments else 0
    return StepLosses(total, values, without, pixels, segments, candidates)


def segments_of(raw: Tensor, batch: Batch, config: Config) -> tuple[Pixels, Segments]:
    """The batch's pixels and segments on the embedding's grid."""
    settings, labels = config.segments, batch.semantic
    if settings.labels == "majority":
        labels = majority_labels(labels, (raw.shape[2], raw.shape[3]))
    return segment(
        raw.to(torch.promote_types(raw.dtype, torch.float32)),
        labels,
        batch.regions,
        grid=settings.grid,
        iterations=settings.iterations,
        embedding_scale=settings.embedding_scale,
        local=local_features(batch.image, (raw.shape[2], raw.shape[3]), settings.colour),
    )


def images_of(batch: Batch) -> BatchImages:
    """What is known of the batch's images beside their pixels."""
    return BatchImages(batch.keys, batch.position, batch.tags, batch.tags_known, batch.window)


def local_features(
    image: Tensor, size: tuple[int, int], colour: Literal["none", "cone", "gaussian"]
) -> Tensor:
    """What stands beside the embedding, [B or 1, *size, L]: coordinates (y, x) and, but for `none`, colours
    (r, g, b)."""
    coordinates = location(*size, device=image.device)[None]
    if colour == "none":
        return coordinates
    return torch.cat([coordinates.expand(len(image), -1, -1, -1), colours(image, size, colour)], dim=-1)


def step_counts(batches: Sequence[Batch], size: tuple[int, int], config: Config) -> Tensor:
    """What the sums of all micro-batches of a step are divided by, a micro-batch's share of it: [4] float64,
    at least 1 ÷ micro-batches; a collective.

    size: of the embedding's grid. Images with a valid cell, labelled cells, cells of images with known tags,
    labelled pixels. (How many cells feature affinity gives a class is known to each micro-batch alone.)
    """
    ours = torch.stack([_counts(batch, size, config) for batch in batches]).sum(dim=0)
    everywhere = comm.sum_all(ours) if config.loss.reduction == "global" else ours
    return everywhere.clamp(min=1) / len(batches)


def _counts(batch: Batch, size: tuple[int, int], config: Config) -> Tensor:
    resized = majority_labels if config.segments.labels == "majority" else resize_labels
    cells, classes = resized(batch.semantic, size), batch.tags.shape[1]
    valid = (cells != IGNORED).flatten(1).sum(dim=1)
    of_each = (
        (valid > 0).sum(),
        (cells < classes).sum(),
        (valid * batch.tags_known).sum(),
        (batch.semantic < classes).sum(),
    )
    return torch.stack(of_each).double()


def _cross_entropy(logits: Tensor, batch: Batch, reduction: str, counts: Tensor | None) -> Tensor:
    """This rank's share of the mean over the labelled pixels, at the labels' size; a collective."""
    classes = batch.tags.shape[1]
    count = (batch.semantic < classes).sum().double()[None] if counts is None else counts[-1:]
    if counts is None:
        count = (comm.sum_all(count) if reduction == "global" else count).clamp(min=1)
    count = count[0]
    if len(logits) == 0:
        return logits.sum()
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cross_entropy(logits, batch.semantic) / count.to(logits.dtype)
