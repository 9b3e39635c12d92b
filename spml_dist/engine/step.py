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
from spml_dist.relations import affinity, annotation, cooccurrence, image_similarity
from spml_dist.schema import Batch, Block, Contrast, Pixels, Rows, Segments
from spml_dist.segments.colour import colours
from spml_dist.segments.location import location
from spml_dist.segments.segment import segment

RELATIONS = ("image_similarity", "annotation", "cooccurrence", "feature_affinity")
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
    rows: Rows | None
    """the segments of all ranks, for the bank; None where no relation is in use"""
    candidates: int


def losses(
    raw: Tensor, logits: Tensor, batch: Batch, remembered: list[Rows], config: Config, first_image: int = 0
) -> StepLosses:
    """All terms of a step.

    raw: [B, C, h, w] embedding; logits: [B, K, h, w] of the joint classifier; remembered: rows of the
    bank; first_image: number of the global batch's first image, unique over the steps. With
    `loss.reduction: global` each sum over all ranks is divided by the count over all ranks; with
    `per_rank` each rank takes its own mean (golden g_relations_sharded), and the mean of the ranks counts.
    """
    values = raw.new_zeros(len(TERMS), dtype=torch.promote_types(raw.dtype, torch.float32))
    without = torch.zeros(len(RELATIONS), dtype=torch.int64, device=raw.device)
    rows, candidates, pixels, propagated, total = None, 0, None, None, raw.sum() * 0

    if any(getattr(config.relations, term).weight for term in RELATIONS):
        pixels, segments = segments_of(raw, batch, config)
        propagated = _propagated(segments, batch, config)
        rows, own_offset = exchange(segments, propagated, batch, first_image)
        everything = concatenate([rows, *remembered])
        candidates = len(everything)
    counts = _counts(pixels, propagated, batch, config).to(values.dtype)

    if pixels is not None:
        own_image = _image_similarity(pixels, segments, config, counts[0])
        across = _across_images(pixels, propagated, own_offset, batch, everything, len(rows), config, counts)
        total = total + own_image.loss + across.loss
        values[:-1] = torch.cat([own_image.values, across.values])
        without = torch.cat([own_image.without_positive, across.without_positive])
    if config.loss.cross_entropy:
        entropy = _cross_entropy(logits, batch.semantic) / counts[-1]
        total = total + config.loss.cross_entropy * entropy
        values[-1] = entropy.detach()
    if config.loss.reduction == "global":
        total = total * comm.world()  # the engine averages gradients over the ranks; sums were wanted
    return StepLosses(total, values, without, 0 if pixels is None else len(pixels.segment), rows, candidates)


def segments_of(raw: Tensor, batch: Batch, config: Config) -> tuple[Pixels, Segments]:
    """The batch's pixels and segments on the embedding's grid."""
    settings = config.segments
    return segment(
        raw.to(torch.promote_types(raw.dtype, torch.float32)),
        local_features(batch.image, tuple(raw.shape[2:]), settings.colour),
        batch.semantic,
        batch.regions,
        tuple(settings.grid),
        settings.iterations,
        settings.embedding_scale,
    )


def local_features(image: Tensor, size: tuple[int, int], colour: str) -> Tensor:
    """What stands beside the embedding, [B or 1, *size, L]: coordinates (y, x) and, but for `none`, colours
    (r, g, b)."""
    coordinates = location(*size, device=image.device)[None]
    if colour == "none":
        return coordinates
    return torch.cat([coordinates.expand(len(image), -1, -1, -1), colours(image, size, colour)], dim=-1)


def exchange(segments: Segments, propagated: Tensor, batch: Batch, first_image: int) -> tuple[Rows, int]:
    """The segments of all ranks in rank order, with gradient, and where this rank's begin."""
    counts = comm.gather_counts(len(segments), segments.semantic.device)
    known = batch.tags_known[segments.image]
    facts = torch.cat([batch.tags[segments.image], known[:, None]], dim=1).to(torch.uint8)
    image = first_image + batch.position[segments.image]
    numbers = torch.stack([segments.semantic, image, propagated], dim=1)
    prototype = comm.gather_rows(segments.prototype, counts)
    facts, numbers = comm.gather_rows(facts, counts).bool(), comm.gather_rows(numbers, counts)
    rows = Rows(prototype, numbers[:, 0], facts[:, :-1], facts[:, -1], numbers[:, 1], numbers[:, 2])
    return rows, sum(counts[: comm.rank()])


def _propagated(segments: Segments, batch: Batch, config: Config) -> Tensor:
    """[P] class of each segment by feature affinity, or 254; where that is not in use, its annotation."""
    relation, num_classes = config.relations.feature_affinity, batch.tags.shape[1]
    if not relation.weight:
        return segments.semantic
    vectors = (segments.prototype_feature if relation.local_features else segments.prototype).detach()
    annotated = segments.semantic < num_classes
    labelled, labels, images = vectors[annotated], segments.semantic[annotated], None
    if relation.scope == "image":
        images = (segments.image, segments.image[annotated])
    else:
        counts = comm.gather_counts(len(labels), labels.device)
        labelled, labels = comm.gather_rows(labelled, counts), comm.gather_rows(labels, counts)
    return affinity.propagate(
        vectors, segments.semantic, labelled, labels, num_classes, relation.min_similarity, images
    )


def _counts(pixels: Pixels | None, propagated: Tensor | None, batch: Batch, config: Config) -> Tensor:
    """[5] denominators in the order of TERMS, at least 1: images with a valid pixel, labelled pixels,
    pixels of images with known tags, pixels that count for feature affinity, labelled pixels at full size."""
    num_classes, scope = batch.tags.shape[1], config.relations.feature_affinity.scope
    counts = torch.zeros(len(TERMS), dtype=torch.float64, device=batch.semantic.device)
    if pixels is not None:
        counts[0] = pixels.image.unique().numel()
        counts[1] = (pixels.semantic < num_classes).sum()
        counts[2] = batch.tags_known[pixels.image].sum()
        counts[3] = affinity.counted(pixels, propagated, num_classes, scope)
    counts[4] = (batch.semantic < num_classes).sum()
    return (comm.sum_all(counts) if config.loss.reduction == "global" else counts).clamp(min=1)


def _image_similarity(pixels: Pixels, segments: Segments, config: Config, images: Tensor) -> Contrast:
    relation = config.relations.image_similarity
    blocks = (
        image_similarity.blocks(pixels, segments, relation.concentration, images) if relation.weight else []
    )
    if relation.local_features:
        vectors, prototypes = pixels.feature, segments.prototype_feature
    else:
        vectors, prototypes = pixels.embedding, segments.prototype
    return contrast(vectors, prototypes, pixels.segment, blocks, (relation.weight,))


def _across_images(
    pixels: Pixels,
    propagated: Tensor,
    own_offset: int,
    batch: Batch,
    candidates: Rows,
    learning: int,
    config: Config,
    counts: Tensor,
) -> Contrast:
    """Annotation, co-occurrence and feature affinity share one pass over the candidates, of which the
    first `learning` have a gradient."""
    annotated, occurring = config.relations.annotation, config.relations.cooccurrence
    near, num_classes = config.relations.feature_affinity, batch.tags.shape[1]
    by_class = annotation.relation(pixels, candidates, num_classes, annotated.concentration)
    by_tags = cooccurrence.relation(
        pixels,
        batch.tags,
        batch.tags_known,
        candidates,
        occurring.concentration,
        occurring.ignore_classes,
        own_repels=config.loss.tagless == "reference",
    )
    by_nearness = affinity.relation(
        pixels, propagated, candidates, num_classes, near.concentration, near.scope
    )
    whole = Block(
        rows=slice(0, len(pixels.segment)),
        columns=slice(0, len(candidates)),
        relations=(by_class, by_tags, by_nearness),
        scale=tuple(1 / counts[1:4]),
    )
    return contrast(
        pixels.embedding,
        candidates.prototype,
        pixels.segment + own_offset,
        [whole],
        (annotated.weight, occurring.weight, near.weight),
        constants=len(candidates) - learning,
    )


def _cross_entropy(logits: Tensor, semantic: Tensor) -> Tensor:
    """Summed over the labelled pixels, at the labels' size."""
    if len(logits) == 0:
        return logits.sum()
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    full = interpolate(logits, size=semantic.shape[1:], mode="bilinear", align_corners=False)
    target = torch.where(semantic < logits.shape[1], semantic.long(), -100)
    return cross_entropy(full, target, ignore_index=-100, reduction="sum")
