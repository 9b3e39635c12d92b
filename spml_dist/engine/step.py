"""One training step's losses, from the network's output to a scalar. No Ray, no DeepSpeed, no state.

A batch flows through here in reading order: segments, exchange, relations, losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from spml_dist import comm
from spml_dist.bank.recent import concatenate
from spml_dist.config import Config
from spml_dist.loss import contrast
from spml_dist.relations import annotation, cooccurrence, image_similarity
from spml_dist.schema import Batch, Block, Pixels, Rows, Segments
from spml_dist.segments.location import location
from spml_dist.segments.segment import segment

TERMS = ("image_similarity", "annotation", "cooccurrence", "cross_entropy")


@dataclass(frozen=True)
class StepLosses:
    """What a (micro-)batch came to on this rank."""

    total: Tensor
    """scalar with gradient, ready for a mean of gradients over the ranks"""
    values: Tensor
    """[4] this rank's share of each term, in the order of TERMS; they add up (or average) over ranks"""
    without_positive: Tensor
    """[3] pixels without any positive: image similarity, annotation, co-occurrence"""
    pixels: int
    """valid pixels of this rank"""
    rows: Rows | None
    """the segments of all ranks, for the bank; None where no relation is in use"""
    candidates: int


def losses(
    raw: Tensor, logits: Tensor, batch: Batch, remembered: list[Rows], config: Config, first_image: int = 0
) -> StepLosses:
    """All four terms of a step.

    raw: [B, C, h, w] embedding; logits: [B, K, h, w] of the joint classifier; remembered: rows of the
    bank; first_image: number of the global batch's first image, unique over the steps. With
    `loss.reduction: global` each sum over all ranks is divided by the count over all ranks; with
    `per_rank` each rank takes its own mean (golden g_relations_sharded), and the mean of the ranks counts.
    """
    weights = [getattr(config.relations, term).weight for term in TERMS[:3]]
    values = raw.new_zeros(4, dtype=torch.promote_types(raw.dtype, torch.float32))
    without = torch.zeros(3, dtype=torch.int64, device=raw.device)
    rows, candidates, pixels, total = None, 0, None, raw.sum() * 0

    if any(weights):
        pixels, segments = segments_of(raw, batch, config)
        rows, own_offset = exchange(segments, batch, first_image)
        everything = concatenate([rows, *remembered])
        candidates = len(everything)
    counts = _counts(pixels, batch, logits.shape[1], config.loss.reduction == "global")

    if any(weights):
        own_image = _image_similarity(pixels, segments, config, counts[2])
        across = _across_images(pixels, own_offset, batch, everything, len(rows), config, counts)
        total = total + own_image.loss + across.loss
        values[:3] = torch.cat([own_image.values, across.values])
        without = torch.cat([own_image.without_positive, across.without_positive])
    if config.loss.cross_entropy:
        entropy = _cross_entropy(logits, batch.semantic) / counts[3]
        total = total + config.loss.cross_entropy * entropy
        values[3] = entropy.detach()
    if config.loss.reduction == "global":
        total = total * comm.world()  # the engine averages gradients over the ranks; sums were wanted
    return StepLosses(total, values, without, 0 if pixels is None else len(pixels.segment), rows, candidates)


def segments_of(raw: Tensor, batch: Batch, config: Config) -> tuple[Pixels, Segments]:
    """The batch's pixels and segments on the embedding's grid."""
    local = location(*raw.shape[2:], device=raw.device)[None]
    grid, iterations = config.segments.grid, config.segments.iterations
    return segment(
        raw.to(torch.promote_types(raw.dtype, torch.float32)),
        local,
        batch.semantic,
        batch.regions,
        tuple(grid),
        iterations,
    )


def exchange(segments: Segments, batch: Batch, first_image: int) -> tuple[Rows, int]:
    """The segments of all ranks in rank order, with gradient, and where this rank's begin."""
    counts = comm.gather_counts(len(segments), segments.semantic.device)
    known = batch.tags_known[segments.image]
    facts = torch.cat([batch.tags[segments.image], known[:, None]], dim=1).to(torch.uint8)
    numbers = torch.stack([segments.semantic, first_image + batch.position[segments.image]], dim=1)
    prototype = comm.gather_rows(segments.prototype, counts)
    facts, numbers = comm.gather_rows(facts, counts).bool(), comm.gather_rows(numbers, counts)
    rows = Rows(prototype, numbers[:, 0], facts[:, :-1], facts[:, -1], numbers[:, 1])
    return rows, sum(counts[: comm.rank()])


def _counts(pixels: Pixels | None, batch: Batch, num_classes: int, over_ranks: bool) -> Tensor:
    """Denominators, at least 1: labelled pixels, pixels of images with known tags, images with a valid
    pixel, labelled pixels at full size."""
    counts = torch.zeros(4, dtype=torch.float64, device=batch.semantic.device)
    if pixels is not None:
        counts[0] = (pixels.semantic < num_classes).sum()
        counts[1] = batch.tags_known[pixels.image].sum()
        counts[2] = pixels.image.unique().numel()
    counts[3] = (batch.semantic < num_classes).sum()
    return (comm.sum_all(counts) if over_ranks else counts).clamp(min=1).to(torch.float32)


def _image_similarity(pixels: Pixels, segments: Segments, config: Config, images: Tensor):
    relation = config.relations.image_similarity
    blocks = (
        image_similarity.blocks(pixels, segments, relation.concentration, images) if relation.weight else []
    )
    return contrast(pixels.feature, segments.prototype_feature, pixels.segment, blocks, (relation.weight,))


def _across_images(pixels, own_offset, batch: Batch, candidates: Rows, learning: int, config: Config, counts):
    """Annotation and co-occurrence share one pass over the candidates."""
    annotated, occurring = config.relations.annotation, config.relations.cooccurrence
    by_class = annotation.relation(pixels, candidates, batch.tags.shape[1], annotated.concentration)
    by_tags = cooccurrence.relation(
        pixels,
        batch.tags,
        batch.tags_known,
        candidates,
        occurring.concentration,
        occurring.ignore_classes,
        own_repels=config.loss.tagless == "reference",
    )
    whole = Block(
        rows=slice(0, len(pixels.segment)),
        columns=slice(0, len(candidates)),
        relations=(by_class, by_tags),
        scale=(1 / counts[0], 1 / counts[1]),
    )
    return contrast(
        pixels.embedding,
        candidates.prototype,
        pixels.segment + own_offset,
        [whole],
        (annotated.weight, occurring.weight),
        constants=len(candidates) - learning,
    )


def _cross_entropy(logits: Tensor, semantic: Tensor) -> Tensor:
    """Summed over the labelled pixels, at the labels' size."""
    if len(logits) == 0:
        return logits.sum()
    full = interpolate(logits.float(), size=semantic.shape[1:], mode="bilinear", align_corners=False)
    target = torch.where(semantic < logits.shape[1], semantic.long(), -100)
    return cross_entropy(full, target, ignore_index=-100, reduction="sum")
