"""Which labelers label a pack, one after the other, and which images each of them."""

from __future__ import annotations

from dataclasses import dataclass

from spml_dist.data.format.manifest import Manifest
from spml_dist.errors import ConfigError, DataError
from spml_dist.records import LABELERS

AUTO = "auto"


@dataclass(frozen=True)
class Stage:
    """One pass over a pack."""

    name: str
    annotated: str | None
    """labeler of the images of which pixels or boxes are annotated; None = they stay as they are"""
    tagged: str | None
    """labeler of the images with tags alone"""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The labelers that take part, in the order of LABELERS."""
        return tuple(kind for kind in LABELERS if kind in (self.annotated, self.tagged))


def stages(by: str, manifest: Manifest, with_cam: bool) -> list[Stage]:
    """What `--by` means for a pack. with_cam: whether a run of `spml-dist cam train` is given.

    `auto`: a walk where pixels or boxes are annotated; where tags are all there is, a walk of activation
    maps if there can be any, and then the neighbours. Raises ConfigError for anything but names of labelers
    with `+` between, or one that needs activation maps without them; DataError for a pack that nobody
    annotated.
    """
    if by == AUTO:
        return _chosen(manifest, with_cam)
    names = by.split("+")
    if unknown := [name for name in names if name not in LABELERS]:
        remedy = f"use auto, or some of {', '.join(LABELERS)} with + between"
        raise ConfigError("--by", unknown[0] or by, remedy)
    if len(set(names)) < len(names):
        raise ConfigError("--by", by, "name each labeler once")
    if not with_cam and any(name in ("cam", "cam-walk") for name in names):
        raise ConfigError("--by", by, "name a run of `spml-dist cam train` by --cam")
    return [Stage(name, None if name == "cam-walk" else name, name) for name in names]


def may_be_tagged_alone(manifest: Manifest) -> bool:
    """Whether tags may be all that people said of an image: there is one without a box, and one without a
    labelled pixel or with labels of a labeler."""
    kinds, unlabelled = manifest.counts.kinds, manifest.counts.images_unlabelled
    unboxed = kinds.get("boxes", 0) < manifest.samples
    return "tags" in kinds and unboxed and bool(unlabelled or set(kinds) & set(LABELERS))


def _chosen(manifest: Manifest, with_cam: bool) -> list[Stage]:
    kinds = set(manifest.counts.kinds)
    tagged = may_be_tagged_alone(manifest)
    # A pack of version 1 does not say: its images are looked at one by one.
    marked = bool(kinds - {"tags"} - set(LABELERS)) or not kinds
    if not kinds and not any(manifest.counts.images_tagged) and not manifest.counts.images_labelled:
        remedy = "pack annotations with the images"
        raise DataError(f"{manifest.name}: no image is annotated", None, remedy)
    found = []
    if marked:
        found.append(Stage("walk", "walk", "cam-walk" if tagged and with_cam else None))
    elif with_cam:
        found.append(Stage("cam-walk", None, "cam-walk"))
    if tagged:
        found.append(Stage("neighbours", None, "neighbours"))
    return found
