"""The four relations over a batch's segments and a bank's, for a training step and for `SPMLLoss`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.config.method_models import LossConfig, RelationsConfig
from spml_dist.method.batch_segments import propagate
from spml_dist.method.fused_loss import fits
from spml_dist.method.loss import contrast
from spml_dist.method.pixel_sampling import sample_pixels
from spml_dist.method.relations import annotation, cooccurrence, feature_affinity, image_similarity
from spml_dist.records import BankCandidates, BatchSegments, Block, Contrast, Relation
from spml_dist.tensor_records import concatenate, detached, take

RELATIONS = ("image_similarity", "annotation", "cooccurrence", "feature_affinity")


@dataclass(frozen=True)
class RelationalLoss:
    """What the relations of a batch came to on this rank."""

    loss: Tensor
    """scalar with gradient: Σ weight · value, ready for a mean of gradients over the ranks"""
    values: dict[str, Tensor]
    """this rank's share of each relation, by its name in RELATIONS, without weight or gradient: they add up
    over the ranks (with reduction per_rank their mean counts)"""
    without_positive: dict[str, Tensor]
    """pixels of this rank without any positive, by relation: int64"""
    segments: BatchSegments
    """with the classes that feature affinity propagated, for a bank"""


def relational_loss(
    segments: BatchSegments,
    bank: BankCandidates | None,
    relations: RelationsConfig,
    loss: LossConfig,
    seed: int = 0,
    step: int = 0,
    counts: Tensor | None = None,
) -> RelationalLoss:
    """Contrast a batch's pixels with its segments of all ranks and with a bank's; a collective.

    bank: None for none; seed, step: of the draw of pixels, where `loss.pixels_per_segment` asks for one. With
    `loss.reduction: global` each sum over all ranks is divided by the count over all ranks; with `per_rank`
    each rank takes its own mean (golden g_relations_sharded), and the mean of the ranks counts. counts: what
    to divide by instead, as `step.step_counts` has it; feature affinity keeps to its own.
    """
    if bank is None:
        bank = BankCandidates(take(detached(segments.candidates), slice(0)))
    segments = propagate(segments, bank, relations.feature_affinity)
    own = denominators(segments, relations, loss)
    own = own if counts is None else torch.cat([counts[:3], own[3:]])
    counts = own.to(segments.pixels.embedding.dtype)
    contrasted = segments
    if loss.pixels_per_segment is not None:
        count, position = len(segments.segments), segments.images.position
        drawn = sample_pixels(segments.pixels, count, loss.pixels_per_segment, position, seed, step)
        contrasted = replace(segments, pixels=drawn)
    within = within_images(contrasted, relations, loss, counts[0])
    across = across_images(contrasted, bank, relations, loss, counts[1:])
    total = within.loss + across.loss
    if loss.reduction == "global":
        total = total * comm.world()  # whoever averages gradients over the ranks is to get their sum
    values = torch.cat([within.values, across.values])
    without = torch.cat([within.without_positive, across.without_positive])
    return RelationalLoss(
        total,
        dict(zip(RELATIONS, values, strict=True)),
        dict(zip(RELATIONS, without, strict=True)),
        segments,
    )


def denominators(segments: BatchSegments, relations: RelationsConfig, loss: LossConfig) -> Tensor:
    """[4] float64 denominators in the order of RELATIONS, at least 1: images with a valid pixel, labelled
    pixels, pixels of images with known tags, pixels that count for feature affinity."""
    pixels, images = segments.pixels, segments.images
    classes, scope = images.tags.shape[1], relations.feature_affinity.scope
    shown = images.tags_known.new_zeros(len(images.tags)).index_fill(0, pixels.image, True)
    near = feature_affinity.counted(pixels, segments.propagated, classes, scope)
    of_each = (
        shown.sum(),
        (pixels.semantic < classes).sum(),
        images.tags_known[pixels.image].sum(),
        shown.new_full((), near, dtype=torch.int64) if isinstance(near, int) else near,
    )
    counts = torch.stack(of_each).double()
    return (comm.sum_all(counts) if loss.reduction == "global" else counts).clamp(min=1)


def within_images(
    segments: BatchSegments, relations: RelationsConfig, loss: LossConfig, images: Tensor
) -> Contrast:
    """Image similarity: every image with its own segments alone. images: how many the mean is taken over."""
    relation, pixels, own = relations.image_similarity, segments.pixels, segments.segments
    if relation.local_features:
        vectors, prototypes = pixels.feature, own.prototype_feature
    else:
        vectors, prototypes = pixels.embedding, own.prototype
    blocks: list[Block] = []
    if relation.weight and loss.fused and fits(vectors, 1):
        batch = len(segments.images.tags)
        blocks = image_similarity.whole(pixels, own, relation.concentration, images, batch)
    elif relation.weight:
        blocks = image_similarity.blocks(pixels, own, relation.concentration, images)
    return contrast(
        vectors,
        prototypes,
        pixels.segment,
        blocks,
        (relation.weight,),
        stands_for=pixels.stands_for,
        products=loss.products,
        fused=loss.fused,
    )


def across_images(
    segments: BatchSegments,
    bank: BankCandidates,
    relations: RelationsConfig,
    loss: LossConfig,
    counts: Tensor,
) -> Contrast:
    """Annotation, co-occurrence and feature affinity share one pass over this step's segments, which have a
    gradient, and the bank's, which have none. counts: [3] denominators."""
    pixels, images, learning = segments.pixels, segments.images, len(segments.candidates)
    annotated, occurring, near = relations.annotation, relations.cooccurrence, relations.feature_affinity
    classes = images.tags.shape[1]
    candidates = concatenate([segments.candidates, bank.rows])
    # Co-occurrence groups by this rank's images: their numbers, and how many rows of the bank share a tag.
    own = per_image(segments, segments.candidates.image)
    sharing = None if bank.counts is None else per_image(segments, bank.counts.sharing)
    by_class = annotation.relation(pixels, candidates, classes, annotated.concentration)
    by_tags = cooccurrence.relation(
        pixels,
        images.tags,
        images.tags_known,
        candidates,
        occurring.concentration,
        occurring.ignore_classes,
        own_repels=loss.tagless == "reference",
        own=None if occurring.own_image else own,
        in_bank=sharing,
    )
    by_nearness = feature_affinity.relation(
        pixels, segments.propagated, candidates, classes, near.concentration, near.scope
    )
    if bank.counts is not None and sharing is not None:
        by_class = _counted(by_class, bank.counts.by_class, learning)
        by_tags = _counted(by_tags, sharing, learning)
        if near.scope != "image":  # there rows without a class attract too
            by_nearness = _counted(by_nearness, bank.counts.by_propagated, learning)
    whole = Block(
        rows=slice(0, len(pixels.segment)),
        columns=slice(0, len(candidates)),
        relations=(by_class, by_tags, by_nearness),
        scale=tuple(1 / counts),
    )
    return contrast(
        pixels.embedding,
        candidates.prototype,
        pixels.segment + segments.first,
        [whole],
        (annotated.weight, occurring.weight, near.weight),
        constants=len(bank.rows),
        log_weight=bank.log_weight,
        stands_for=pixels.stands_for,
        products=loss.products,
        fused=loss.fused,
    )


def per_image(segments: BatchSegments, values: Tensor) -> Tensor:
    """What all segments of an image have in common, [B] int64 of this rank's images; 0 for one without any.

    values: [P] int64 of the candidates.
    """
    result = torch.zeros(len(segments.images.tags), dtype=torch.int64, device=values.device)
    result[segments.segments.image] = values[segments.own]
    return result


def _counted(relation: Relation, in_bank: Tensor, learning: int) -> Relation:
    """The relation with exact numbers of attracting segments: of this step, which are its first `learning`
    candidates, and of all the rows in the bank that the others stand for, [G]. A sample decides how much
    attracts a pixel; whether anything does must not depend on the draw."""
    return replace(relation, attracting=relation.attract[:, :learning].sum(dim=1) + in_bank)
