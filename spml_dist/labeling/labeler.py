"""What a labeler may change of an image, and what is kept of how sure it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from spml_dist.records import ANNOTATED, IGNORED, UNLABELLED, Sample

Labeler = Callable[[Sample], Sample]
"""a sample -> the same with more labels, their confidence and the labeler among its kinds; one that gets no
label comes back as it is. It travels to the processes that label, so it pickles"""

_OF_SEEDS_ALONE = {"tags", "cam"}


@dataclass(frozen=True)
class ByLabels:
    """One labeler for images of which pixels or boxes are annotated, and one for those with tags alone."""

    annotated: Labeler | None
    """None leaves those images as they are"""
    tagged: Labeler | None

    def __call__(self, sample: Sample) -> Sample:
        label = self.tagged if is_tagged_alone(sample) else self.annotated
        return sample if label is None else label(sample)


def annotated(sample: Sample) -> np.ndarray:
    """[H, W] bool: the pixels that no labeler may change: people annotated them, or they are ignored."""
    if sample.confidence is not None:
        return (sample.confidence == ANNOTATED) | (sample.semantic == IGNORED)
    # Seeds of a release that kept no confidence: only where nothing else can have labelled them is it known.
    seeds_alone = "cam" in sample.kinds and _OF_SEEDS_ALONE.issuperset(sample.kinds)
    return sample.semantic == IGNORED if seeds_alone else sample.semantic != UNLABELLED


def is_tagged_alone(sample: Sample) -> bool:
    """Whether tags are all that people said of an image."""
    unmarked = (sample.semantic[annotated(sample)] == IGNORED).all()
    return bool(sample.tags is not None and sample.boxes is None and unmarked)


def possible(sample: Sample, num_classes: int, background: int | None) -> np.ndarray | None:
    """[K] bool: the classes that an image may show by its tags, boxes and annotated pixels, the background
    always among them; None where none of these tells."""
    counts = np.bincount(sample.semantic[annotated(sample)], minlength=256)[:num_classes]
    shown = counts > 0
    shown[[label for label, *_ in sample.boxes or ()]] = True
    shown[list(sample.tags or ())] = True
    if background is not None:
        shown[background] = False
    # Marks of the background alone do not say that an image shows nothing else.
    if sample.tags is None and sample.boxes is None and not shown.any():
        return None
    if background is not None:
        shown[background] = True
    return shown


def with_labels(
    sample: Sample, labels: np.ndarray, confidence: np.ndarray, kind: str, least: float = 0.0
) -> Sample:
    """The sample with a labeler's labels wherever nobody annotated it.

    labels: [H, W] uint8, 0..K-1 or 254; confidence: [H, W] float in 0..1; kind: the labeler's name, which
    joins the sample's kinds; least: confidence below which a pixel stays unlabelled. What another labeler
    has labelled before is replaced. The sample itself comes back if no pixel is labelled.
    """
    kept = annotated(sample)
    labelled = ~kept & (labels != UNLABELLED) & (confidence >= least)
    if not labelled.any():
        return sample
    steps = 1 + np.round(np.clip(confidence, 0, 1) * (ANNOTATED - 2)).astype(np.uint8)
    return replace(
        sample,
        semantic=np.where(kept, sample.semantic, np.where(labelled, labels, UNLABELLED)).astype(np.uint8),
        confidence=np.where(kept, ANNOTATED, np.where(labelled, steps, 0)).astype(np.uint8),
        kinds=tuple(dict.fromkeys((*sample.kinds, kind))),
    )
