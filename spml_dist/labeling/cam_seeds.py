"""Labels of pixels from activation maps (SPML paper, appendix A.2). Plain arithmetic on one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spml_dist.config.labeling_models import CamConfig
from spml_dist.data.annotations.boxes import area, whole, window
from spml_dist.records import IGNORED, UNLABELLED, Box, Sample


def mapped_classes(sample: Sample) -> tuple[int, ...] | None:
    """The classes whose maps say where things are in an image, ascending; None = it is left as it is.

    Those of its boxes; without boxes those of its tags, if no pixel is annotated. () = it shows no object.
    """
    if sample.boxes is not None:
        return tuple(sorted({label for label, *_ in sample.boxes}))
    if sample.tags is None or not np.isin(sample.semantic, (UNLABELLED, IGNORED)).all():
        return None
    return tuple(sorted(sample.tags))


def seeds(sample: Sample, maps: np.ndarray, background: int | None, settings: CamConfig) -> np.ndarray:
    """The image's labels with seeds where it had none: [H, W] uint8. Annotated pixels never change.

    maps: [C, H, W] float32 of the classes that `mapped_classes` names, in that order, at least 0 where the
    image has no boxes; background: class of what is no object, None where the set has none.
    """
    classes = mapped_classes(sample) or ()
    if sample.boxes is None:
        labels = tag_seeds(maps, classes, background, settings)
    else:
        labels = box_seeds(
            dict(zip(classes, maps, strict=True)), sample.boxes, maps.shape[1:], background, settings
        )
    return np.where(sample.semantic == UNLABELLED, labels, sample.semantic)


def located_shares(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each map M_c over its maximum, and whether the class is located: [C, H, W] float32, [C] bool.

    A class is located nowhere where its map is nowhere positive or not finite somewhere; its shares are 0.
    """
    highest = maps.max(axis=(1, 2), keepdims=True, initial=0)
    located = (highest > 0) & np.isfinite(maps).all(axis=(1, 2), keepdims=True)
    # A class that is located nowhere keeps zeros: it labels nothing, and no division by 0 spreads.
    return np.divide(maps, highest, out=np.zeros_like(maps), where=located), located[:, 0, 0]


def tag_seeds(
    maps: np.ndarray, classes: Sequence[int], background: int | None, settings: CamConfig
) -> np.ndarray:
    """A pixel takes the class of its strongest map M_c, over that map's maximum, from the foreground's
    threshold on; background where (1 - max M_c)^α reaches its own; the stronger where both; else 254.

    Of equal maps the lowest class wins, and a class wins over the background. A class that is located nowhere
    labels nothing; nor is there background then, for that class is in the image all the same. Returns
    [H, W] uint8.
    """
    shares, located = located_shares(maps)
    strength = shares.max(axis=0, initial=0)
    labels = np.full(strength.shape, UNLABELLED, np.uint8)
    labelled = strength >= settings.foreground
    if len(classes):
        labels[labelled] = np.asarray(classes, np.uint8)[shares.argmax(axis=0)[labelled]]
    if background is not None and located.all():
        ground = (1 - strength) ** settings.alpha
        labels[(ground >= settings.background) & (~labelled | (ground > strength))] = background
    return labels


def box_seeds(
    maps: dict[int, np.ndarray],
    boxes: Sequence[Box],
    shape: tuple[int, int],
    background: int | None,
    settings: CamConfig,
) -> np.ndarray:
    """Inside each box the map of its class is stretched to 0..1; a pixel takes the class of the box where
    that is strongest, from the box's threshold on, else 254; outside all boxes lies background.

    Of boxes that are equally strong at a pixel the smaller one wins, then the earlier. A map that is flat
    inside a box says nothing of it. maps: class -> [H, W] float32. Returns [H, W] uint8.
    """
    strength, label = _strongest(maps, boxes, shape)
    inside = label != UNLABELLED
    outside = UNLABELLED if background is None else background
    return np.where(inside, np.where(strength >= settings.box, label, UNLABELLED), outside).astype(np.uint8)


def confidence(
    sample: Sample, maps: np.ndarray, labels: np.ndarray, background: int | None, settings: CamConfig
) -> np.ndarray:
    """How sure each of an image's seeds is, [H, W] float32 in 0..1: the strength by which it won.

    maps: as for `seeds`, which gave the labels. Background outside all boxes is sure.
    """
    if sample.boxes is None:
        strength = located_shares(maps)[0].max(axis=0, initial=0)
        ground = (1 - strength) ** settings.alpha
        return strength if background is None else np.where(labels == background, ground, strength)
    by_class = dict(zip(mapped_classes(sample) or (), maps, strict=True))
    strength, label = _strongest(by_class, sample.boxes, maps.shape[1:])
    return np.where(label == UNLABELLED, np.float32(1), strength)


def _strongest(
    maps: dict[int, np.ndarray], boxes: Sequence[Box], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """At each pixel the strongest box: its stretched map and its class, [H, W] float32 and uint8; 0 and 254
    outside all boxes."""
    strength = np.zeros(shape, np.float32)
    label = np.full(shape, UNLABELLED, np.uint8)
    # Largest first, and of one size the later ones: whoever is painted later wins where it is as strong.
    for name, x0, y0, x1, y1 in sorted(reversed(boxes), key=area, reverse=True):
        covered = window(x0, y0, x1, y1, whole(shape))
        inside = maps[name][covered]
        low, high = inside.min(), inside.max()
        # Each box over its own extremes: maps of different boxes have no common scale.
        stretched = (inside - low) / (high - low) if high > low else np.zeros_like(inside)
        wins = stretched >= strength[covered]
        strength[covered][wins] = stretched[wins]
        label[covered][wins] = name
    return strength, label
