"""Several kinds of annotation of one image, as one: what stands first decides, what is known adds up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from spml_dist.data.annotations.boxes import whole, window
from spml_dist.records import UNLABELLED, Box


@dataclass(frozen=True)
class ImageLabels:
    """What one kind of annotation tells of an image. None = it does not tell."""

    semantic: np.ndarray | None = None
    """[H, W] uint8: 0..K-1 labelled, 254 unlabelled, 255 ignored"""
    shown: tuple[int, ...] | None = None
    """classes of its pixels or boxes, without the background; () = known to show none"""
    listed: tuple[int, ...] | None = None
    """classes that it lists as tags, without the background; () = known to show none"""
    boxes: tuple[Box, ...] | None = None
    """boxes of all objects"""
    implied: np.ndarray | None = None
    """[H, W] bool: pixels that are background only because nothing is marked there; None = there are none"""


def merge_labels(by_kind: Sequence[ImageLabels]) -> tuple[np.ndarray | None, int]:
    """One label map of several, and on how many pixels they say different classes.

    On a pixel the kind that stands first decides; its unlabelled pixels (254, not 255) are filled by later
    ones. Ignoring a pixel (255) says no class, so it contradicts none. Background that is only implied says
    nothing inside a box of any kind, whatever their order: something is there.
    Returns [H, W] uint8, or None if no kind labels pixels, and the count.
    """
    boxes = merge_boxes(by_kind) or ()
    maps = [_certain(each.semantic, each.implied, boxes) for each in by_kind if each.semantic is not None]
    if not maps:
        return None, 0
    semantic, first = maps[0].copy(), maps[0].copy()
    contradicted = np.zeros(semantic.shape, bool)
    # `semantic` is what the deciding kind has, 255 included; `first` is the first class of any kind, which a
    # pixel that the deciding kind ignores may have too. Contradictions are counted against the latter.
    for later in maps[1:]:
        semantic = np.where(semantic == UNLABELLED, later, semantic)
        labelled = later < UNLABELLED
        contradicted |= labelled & (first < UNLABELLED) & (first != later)
        first = np.where(labelled & (first >= UNLABELLED), later, first)
    return semantic, int(contradicted.sum())


def _certain(semantic: np.ndarray, implied: np.ndarray | None, boxes: Iterable[Box]) -> np.ndarray:
    """The labels [H, W], without what is only implied inside the boxes."""
    if implied is None:
        return semantic
    height, width = semantic.shape
    inside = np.zeros((height, width), bool)
    for _, x0, y0, x1, y1 in boxes:
        inside[window(x0, y0, x1, y1, whole((height, width)))] = True
    return np.where(implied & inside, np.uint8(UNLABELLED), semantic)


def merge_tags(by_kind: Iterable[ImageLabels]) -> tuple[int, ...] | None:
    """Ascending classes that any kind lists or shows; None if no kind tells any."""
    return _union(tags for each in by_kind for tags in (each.listed, each.shown))


def unlisted(by_kind: Sequence[ImageLabels]) -> tuple[int, ...]:
    """Ascending classes that pixels or boxes show and the listed tags, where there are any, leave out."""
    listed = _union(each.listed for each in by_kind)
    shown = _union(each.shown for each in by_kind)
    return () if listed is None else tuple(sorted(set(shown or ()) - set(listed)))


def merge_boxes(by_kind: Iterable[ImageLabels]) -> tuple[Box, ...] | None:
    """The boxes of all kinds, in their order; None if no kind has boxes."""
    lists = [each.boxes for each in by_kind if each.boxes is not None]
    return tuple(box for boxes in lists for box in boxes) if lists else None


def _union(tags: Iterable[tuple[int, ...] | None]) -> tuple[int, ...] | None:
    known = [each for each in tags if each is not None]
    return tuple(sorted(set().union(*known))) if known else None
