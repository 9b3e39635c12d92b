"""A sample as people see it: the image, its labels and boxes, its regions, what is known of it in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from spml_dist.data.format.keys import image_id_of
from spml_dist.data.format.manifest import Manifest
from spml_dist.drawing.contact_sheet import Card, class_chips, fitted, sheet
from spml_dist.drawing.lettering import without_font
from spml_dist.drawing.overlay import outline, overlay, palette
from spml_dist.records import UNLABELLED, Box, Sample


@dataclass(frozen=True)
class PackSheet:
    """Samples of a pack side by side."""

    picture: np.ndarray
    """[H, W, 3] uint8 RGB"""
    images: int
    without_font: str
    """letters that are drawn as their numbers: no font of this machine has them"""


def sheet_of(samples: Iterable[Sample], manifest: Manifest, masks: bool = False) -> PackSheet:
    """A contact sheet of a pack's samples; there is one at least. masks: show ground truth too."""
    colours = palette(len(manifest.classes), manifest.background)
    cards: list[Card] = []
    labels: set[int] = set()
    for sample in samples:  # one after the other: only what is drawn stays in memory
        cards.append(card(sample, manifest, colours, masks))
        labels |= shown(sample, masks)
    sources = manifest.labels.replace(",", ", ")
    count = f"{len(cards)} of {manifest.samples:,} images"
    heading = f"{manifest.name} · {manifest.split} · {sources} · {count}"
    picture = sheet(heading, cards, class_chips(sorted(labels), manifest.classes, colours))
    texts = (heading, *manifest.classes, *(text for each in cards for text in (each.title, each.note)))
    letters = "".join(sorted({letter for text in texts for letter in without_font(text)}))
    return PackSheet(picture, len(cards), letters)


def card(sample: Sample, manifest: Manifest, colours: np.ndarray, masks: bool = False) -> Card:
    """The sample's place on a contact sheet. colours: [256, 3] from `palette`; masks: show ground truth too.

    A labelled pixel is seen however much smaller the image becomes.
    """
    size = fitted(*sample.semantic.shape)
    image = cv2.resize(sample.image, size[::-1], interpolation=cv2.INTER_AREA)
    semantic = reduced(sample.semantic, size)
    labels = _boxed(_tinted(image, semantic, colours), sample, colours)
    regions = cv2.resize(sample.regions, size[::-1], interpolation=cv2.INTER_NEAREST)
    count = len(np.unique(sample.regions))
    views = [
        (f"{sample.image.shape[1]} × {sample.image.shape[0]} pixels", image),
        (_labelled(sample), labels),
        (f"{count:,} region{'s' * (count != 1)}", outline(image, regions)),
    ]
    if masks:
        views.append(_mask(sample, image, colours))
    tags = class_chips(sample.tags or (), manifest.classes, colours)
    return Card(image_id_of(sample.key), views, note(sample, manifest), tags)


def shown(sample: Sample, masks: bool = False) -> set[int]:
    """The labels that its place on the sheet shows: pixels', boxes' and tags'; 254 and 255 among them."""
    labels = set(np.unique(sample.semantic).tolist()) | set(sample.tags or ())
    labels |= {box[0] for box in sample.boxes or ()}
    return labels | set(np.unique(sample.mask).tolist()) if masks and sample.mask is not None else labels


def note(sample: Sample, manifest: Manifest) -> str:
    """Kinds of annotation, what is known of the tags, and what contradicts, in a line."""
    labelled = bool((sample.semantic < UNLABELLED).any())
    kinds = sample.kinds or ((manifest.labels,) if labelled else ())  # version 1 names none
    facts = [", ".join(kinds) or "not annotated"]
    if sample.tags is None:
        facts.append("tags unknown")
    elif not sample.tags:
        facts.append("known to show no class")
    if sample.unlisted:
        facts.append("not listed: " + ", ".join(manifest.classes[label] for label in sample.unlisted))
    if sample.contradicted:
        facts.append(f"contradicted pixels: {sample.contradicted:,}")
    return " · ".join(facts)


def reduced(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A label map [H, W] in another size (h, w): where pixels fall together, a class beats unlabelled."""
    rows, columns = (
        np.arange(new) * old // new for new, old in zip(size, labels.shape, strict=True)
    )  # unlabelled and ignored are the highest labels
    return np.minimum.reduceat(np.minimum.reduceat(labels, rows, axis=0), columns, axis=1)


def _labelled(sample: Sample) -> str:
    share = (sample.semantic < UNLABELLED).mean()
    text = f"{share:.1%} labelled" if share >= 0.0005 else "less than 0.1% labelled" if share else "no label"
    if sample.boxes is not None:
        text += f", {len(sample.boxes)} box{'es' * (len(sample.boxes) != 1)}"
    return text


def _tinted(image: np.ndarray, labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Thin labels in their full colour."""
    thin = (labels < UNLABELLED).mean() < 0.2
    return overlay(image, labels, colours, 0.95 if thin else 0.7)


def _boxed(drawn: np.ndarray, sample: Sample, colours: np.ndarray) -> np.ndarray:
    scale = np.array(drawn.shape[1::-1]) / sample.semantic.shape[::-1]
    for box in sample.boxes or ():
        first, last = _corners(box, scale)
        cv2.rectangle(drawn, first, last, (255, 255, 255), 4)
        cv2.rectangle(drawn, first, last, tuple(map(int, colours[box[0]])), 2)
    return drawn


def _corners(box: Box, scale: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    first, last = np.array(box[1:3]) * scale, np.array(box[3:5]) * scale - 1
    (x0, y0), (x1, y1) = first.round().astype(int).tolist(), last.round().astype(int).tolist()
    return (x0, y0), (x1, y1)


def _mask(sample: Sample, image: np.ndarray, colours: np.ndarray) -> tuple[str, np.ndarray]:
    if sample.mask is None:
        return "no whole mask", np.full_like(image, 245)
    mask = cv2.resize(sample.mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    return "whole mask", _tinted(image, mask, colours)
