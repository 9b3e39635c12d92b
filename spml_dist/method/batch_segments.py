"""A batch's segments over all ranks: exchanged with gradient, and given a class by feature affinity."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.config.method_models import FeatureAffinityConfig
from spml_dist.hashing import image_hash
from spml_dist.method.relations import feature_affinity
from spml_dist.records import BankCandidates, BatchImages, BatchSegments, Candidates, Pixels, Segments


def exchange(pixels: Pixels, segments: Segments, images: BatchImages) -> BatchSegments:
    """This rank's segments beside those of all ranks, which keep their gradient; a collective.

    Their propagated classes are their annotations until `propagate`.
    """
    device, classes = segments.semantic.device, images.tags.shape[1]
    counts = comm.gather_counts(len(segments), device)
    known = images.tags_known[segments.image]
    image = image_hash(images.keys, device) if images.keys else images.position
    # Columns of one type travel together: three collectives for the six fields of a candidate.
    tags = torch.cat([images.tags[segments.image], known[:, None]], dim=1).to(torch.uint8)
    numbers = torch.stack([segments.semantic, image[segments.image]], dim=1)
    prototype = comm.gather_rows(segments.prototype, counts)
    tags, numbers = comm.gather_rows(tags, counts).bool(), comm.gather_rows(numbers, counts)
    candidates = Candidates(prototype, numbers[:, 0], tags[:, :-1], tags[:, -1], numbers[:, 1], numbers[:, 0])
    confidence = (segments.semantic < classes).float()
    return BatchSegments(pixels, segments, images, candidates, sum(counts[: comm.rank()]), confidence)


def propagate(batch: BatchSegments, bank: BankCandidates, relation: FeatureAffinityConfig) -> BatchSegments:
    """Give every segment its class by feature affinity; a collective. As it is where that is not in use.

    bank: whose annotated neighbours vote too in scope global.
    """
    if not relation.weight:
        return batch
    segments, classes = batch.segments, batch.images.tags.shape[1]
    vectors = (segments.prototype_feature if relation.local_features else segments.prototype).detach()
    annotated = (segments.semantic < classes).nonzero()[:, 0]
    labelled, labels = vectors[annotated], segments.semantic[annotated]
    images: tuple[Tensor, Tensor] | None = None
    neighbours: tuple[Tensor, Tensor] | None = None
    if relation.scope == "image":
        images = (segments.image, segments.image[annotated])
    else:
        counts = comm.gather_counts(len(labels), labels.device)
        labelled, labels = comm.gather_rows(labelled, counts), comm.gather_rows(labels, counts)
    if relation.scope == "global" and bank.labelled is not None:
        neighbours = bank.labelled.similarity[batch.own], bank.labelled.label[batch.own].long()
    propagated, confidence = feature_affinity.propagate(
        vectors,
        segments.semantic,
        labelled,
        labels,
        classes,
        relation.min_similarity,
        images,
        relation.neighbours,
        relation.margin,
        neighbours,
    )
    of_all_ranks = comm.gather_rows(propagated, comm.gather_counts(len(propagated), propagated.device))
    candidates = replace(batch.candidates, propagated=of_all_ranks)
    return replace(batch, candidates=candidates, confidence=confidence)
