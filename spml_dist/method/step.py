"""One training step's losses, from the network's output to a scalar. No Ray, no DeepSpeed, no state.

A batch flows through here in reading order: segments, exchange, relations, losses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from spml_dist import comm
from spml_dist.config import Config
from spml_dist.hashing import image_hash
from spml_dist.method.cell_labels import majority_labels
from spml_dist.method.colour import colours
from spml_dist.method.location import location
from spml_dist.method.loss import contrast
from spml_dist.method.relations import annotation, cooccurrence, feature_affinity, image_similarity
from spml_dist.method.segments import segment
from spml_dist.records import BankCandidates, Batch, Block, Candidates, Contrast, Pixels, Relation, Segments
from spml_dist.tensor_records import concatenate

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
    rows: Candidates | None
    """the segments of all ranks; None where no relation is in use"""
    own: Own | None
    """this rank's segments, for a bank that remembers where they were; None where no relation is in use"""
    candidates: int


@dataclass(frozen=True)
class Own:
    """This rank's segments and what feature affinity made of them."""

    pixels: Pixels
    segments: Segments
    propagated: Tensor
    """[P] int64: class, or 254"""
    confidence: Tensor
    """[P] float32: how sure it is"""


def losses(
    raw: Tensor, logits: Tensor, batch: Batch, recall: Callable[[Candidates], BankCandidates], config: Config
) -> StepLosses:
    """All terms of a step.

    raw: [B, C, h, w] embedding; logits: [B, K, h, w] of the joint classifier; recall: what a bank has to
    say to this step's segments of all ranks, asked once if any relation is in use. With `loss.reduction:
    global` each sum over all ranks is divided by the count over all ranks; with `per_rank` each rank takes
    its own mean (golden g_relations_sharded), and the mean of the ranks counts.
    """
    values = raw.new_zeros(len(TERMS), dtype=torch.promote_types(raw.dtype, torch.float32))
    without = torch.zeros(len(RELATIONS), dtype=torch.int64, device=raw.device)
    rows, own, candidates, total = None, None, 0, raw.sum() * 0

    if any(getattr(config.relations, term).weight for term in RELATIONS):
        pixels, segments = segments_of(raw, batch, config)
        rows, own_offset = exchange(segments, batch)
        memory = recall(rows)
        own, rows = propagated(pixels, segments, rows, own_offset, memory, config)
        candidates = len(rows) + len(memory.rows)
    counts = denominators(own, batch, config).to(values.dtype)

    if own is not None:
        own_image = _image_similarity(pixels, segments, config, counts[0])
        across = across_images(own, own_offset, batch, rows, memory, config, counts)
        total = total + own_image.loss + across.loss
        values[:-1] = torch.cat([own_image.values, across.values])
        without = torch.cat([own_image.without_positive, across.without_positive])
    if config.loss.cross_entropy:
        entropy = _cross_entropy(logits, batch.semantic) / counts[-1]
        total = total + config.loss.cross_entropy * entropy
        values[-1] = entropy.detach()
    if config.loss.reduction == "global":
        total = total * comm.world()  # the engine averages gradients over the ranks; sums were wanted
    return StepLosses(total, values, without, len(own.pixels.segment) if own else 0, rows, own, candidates)


def segments_of(raw: Tensor, batch: Batch, config: Config) -> tuple[Pixels, Segments]:
    """The batch's pixels and segments on the embedding's grid."""
    settings, semantic = config.segments, batch.semantic
    if settings.labels == "majority":
        semantic = majority_labels(semantic, tuple(raw.shape[2:]))
    return segment(
        raw.to(torch.promote_types(raw.dtype, torch.float32)),
        local_features(batch.image, tuple(raw.shape[2:]), settings.colour),
        semantic,
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


def exchange(segments: Segments, batch: Batch) -> tuple[Candidates, int]:
    """The segments of all ranks in rank order, with gradient, and where this rank's begin."""
    device = segments.semantic.device
    counts = comm.gather_counts(len(segments), device)
    known = batch.tags_known[segments.image]
    facts = torch.cat([batch.tags[segments.image], known[:, None]], dim=1).to(torch.uint8)
    numbers = torch.stack([segments.semantic, image_hash(batch.keys, device)[segments.image]], dim=1)
    prototype = comm.gather_rows(segments.prototype, counts)
    facts, numbers = comm.gather_rows(facts, counts).bool(), comm.gather_rows(numbers, counts)
    rows = Candidates(prototype, numbers[:, 0], facts[:, :-1], facts[:, -1], numbers[:, 1], numbers[:, 0])
    return rows, sum(counts[: comm.rank()])


def propagated(
    pixels: Pixels,
    segments: Segments,
    rows: Candidates,
    own_offset: int,
    memory: BankCandidates,
    config: Config,
) -> tuple[Own, Candidates]:
    """Give every segment its class by feature affinity; where that is not in use, its annotation."""
    relation, num_classes = config.relations.feature_affinity, rows.tags.shape[1]
    confidence = (segments.semantic < num_classes).float()
    if not relation.weight:
        return Own(pixels, segments, segments.semantic, confidence), rows
    vectors = (segments.prototype_feature if relation.local_features else segments.prototype).detach()
    annotated = segments.semantic < num_classes
    labelled, labels, images, remembered = vectors[annotated], segments.semantic[annotated], None, None
    if relation.scope == "image":
        images = (segments.image, segments.image[annotated])
    else:
        counts = comm.gather_counts(len(labels), labels.device)
        labelled, labels = comm.gather_rows(labelled, counts), comm.gather_rows(labels, counts)
    if relation.scope == "global" and memory.labelled is not None:
        own = slice(own_offset, own_offset + len(segments))
        remembered = memory.labelled.similarity[own], memory.labelled.label[own].long()
    classes, confidence = feature_affinity.propagate(
        vectors,
        segments.semantic,
        labelled,
        labels,
        num_classes,
        relation.min_similarity,
        images,
        relation.neighbours,
        relation.margin,
        remembered,
    )
    everyones = comm.gather_rows(classes, comm.gather_counts(len(classes), classes.device))
    return Own(pixels, segments, classes, confidence), replace(rows, propagated=everyones)


def denominators(own: Own | None, batch: Batch, config: Config) -> Tensor:
    """[5] denominators in the order of TERMS, at least 1: images with a valid pixel, labelled pixels,
    pixels of images with known tags, pixels that count for feature affinity, labelled pixels at full size."""
    num_classes, scope = batch.tags.shape[1], config.relations.feature_affinity.scope
    counts = torch.zeros(len(TERMS), dtype=torch.float64, device=batch.semantic.device)
    if own is not None:
        counts[0] = own.pixels.image.unique().numel()
        counts[1] = (own.pixels.semantic < num_classes).sum()
        counts[2] = batch.tags_known[own.pixels.image].sum()
        counts[3] = feature_affinity.counted(own.pixels, own.propagated, num_classes, scope)
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


def across_images(
    own: Own,
    own_offset: int,
    batch: Batch,
    rows: Candidates,
    memory: BankCandidates,
    config: Config,
    counts: Tensor,
) -> Contrast:
    """Annotation, co-occurrence and feature affinity share one pass over this step's segments, which have a
    gradient, and the bank's."""
    annotated, occurring = config.relations.annotation, config.relations.cooccurrence
    near, num_classes = config.relations.feature_affinity, batch.tags.shape[1]
    candidates = concatenate([rows, memory.rows])
    by_class = annotation.relation(own.pixels, candidates, num_classes, annotated.concentration)
    by_tags = cooccurrence.relation(
        own.pixels,
        batch.tags,
        batch.tags_known,
        candidates,
        occurring.concentration,
        occurring.ignore_classes,
        own_repels=config.loss.tagless == "reference",
    )
    by_nearness = feature_affinity.relation(
        own.pixels, own.propagated, candidates, num_classes, near.concentration, near.scope
    )
    if memory.standing is not None:
        sharing = torch.zeros(len(batch), dtype=torch.int64, device=batch.position.device)
        sharing[own.segments.image] = memory.standing.sharing[own_offset : own_offset + len(own.segments)]
        by_class = _standing_for(by_class, memory.standing.by_class, len(rows))
        by_tags = _standing_for(by_tags, sharing, len(rows))
        if near.scope != "image":  # there rows without a class attract too
            by_nearness = _standing_for(by_nearness, memory.standing.by_propagated, len(rows))
    whole = Block(
        rows=slice(0, len(own.pixels.segment)),
        columns=slice(0, len(candidates)),
        relations=(by_class, by_tags, by_nearness),
        scale=tuple(1 / counts[1:4]),
    )
    return contrast(
        own.pixels.embedding,
        candidates.prototype,
        own.pixels.segment + own_offset,
        [whole],
        (annotated.weight, occurring.weight, near.weight),
        constants=len(memory.rows),
        log_weight=memory.log_weight,
    )


def _standing_for(relation: Relation, remembered: Tensor, learning: int) -> Relation:
    """The relation with exact numbers of attracting segments: this step's, and all the rows in the bank that
    its candidates stand for, [G]."""
    return replace(relation, attracting=relation.attract[:, :learning].sum(dim=1) + remembered)


def _cross_entropy(logits: Tensor, semantic: Tensor) -> Tensor:
    """Summed over the labelled pixels, at the labels' size."""
    if len(logits) == 0:
        return logits.sum()
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    full = interpolate(logits, size=semantic.shape[1:], mode="bilinear", align_corners=False)
    target = torch.where(semantic < logits.shape[1], semantic.long(), -100)
    return cross_entropy(full, target, ignore_index=-100, reduction="sum")
