"""Several kinds of annotation of one image, as one: what stands first decides, what is known adds up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from spml_dist.data.annotations.boxes import whole, window
from spml_dist.records import UNLABELLED, Box


@dataclass(frozen=True)
class Said:
    """What one kind of annotation says of an image. None = it does not say."""

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


def labels_of(said: Sequence[Said]) -> tuple[np.ndarray | None, int]:
    """One label map of several, and on how many pixels they say different classes.

    On a pixel the kind that stands first decides; its unlabelled pixels (254, not 255) are filled by later
    ones. Ignoring a pixel (255) says no class, so it contradicts none. Background that is only implied says
    nothing inside a box of any kind, whatever their order: something is there.
    Returns [H, W] uint8, or None if no kind labels pixels, and the count.
    """
    boxes = boxes_of(said) or ()
    maps = [_outside(boxes, each) for each in said if each.semantic is not None]
    if not maps:
        return None, 0
    semantic, first = maps[0].copy(), maps[0].copy()
    contradicted = np.zeros(semantic.shape, bool)
    for later in maps[1:]:
        semantic = np.where(semantic == UNLABELLED, later, semantic)
        says = later < UNLABELLED
        contradicted |= says & (first < UNLABELLED) & (first != later)
        first = np.where(says & (first >= UNLABELLED), later, first)
    return semantic, int(contradicted.sum())


def _outside(boxes: Iterable[Box], said: Said) -> np.ndarray:
    """The labels [H, W], without what is only implied inside the boxes."""
    semantic = said.semantic
    if said.implied is None:
        return semantic
    inside = np.zeros(semantic.shape, bool)
    for _, *corners in boxes:
        inside[window(*corners, whole(semantic.shape))] = True
    return np.where(said.implied & inside, np.uint8(UNLABELLED), semantic)


def tags_of(said: Iterable[Said]) -> tuple[int, ...] | None:
    """Ascending classes that any kind lists or shows; None if no kind says anything."""
    return _union(tags for each in said for tags in (each.listed, each.shown))


def unlisted(said: Sequence[Said]) -> tuple[int, ...]:
    """Ascending classes that pixels or boxes show and the listed tags, where there are any, leave out."""
    listed = _union(each.listed for each in said)
    shown = _union(each.shown for each in said)
    return () if listed is None else tuple(sorted(set(shown or ()) - set(listed)))


def boxes_of(said: Iterable[Said]) -> tuple[Box, ...] | None:
    """The boxes of all kinds, in their order; None if no kind has boxes."""
    drawn = [each.boxes for each in said if each.boxes is not None]
    return tuple(box for boxes in drawn for box in boxes) if drawn else None


def _union(tags: Iterable[tuple[int, ...] | None]) -> tuple[int, ...] | None:
    known = [each for each in tags if each is not None]
    return tuple(sorted(set().union(*known))) if known else None
