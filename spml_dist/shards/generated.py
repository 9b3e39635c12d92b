"""The generated sample: a small data set that needs no download, the same for the same seed everywhere."""

from __future__ import annotations

from collections.abc import Iterator

from spml_dist.errors import DataError
from spml_dist.schema import Sample
from spml_dist.shards.scenes import scene

SPLITS = ("train", "val")
LABELS = "scribbles"
_SMALLEST = 64


def generated(split: str, images: int, *, size: int = 160, seed: int = 0) -> Iterator[Sample]:
    """The scenes of a split, with scribbles and whole masks; more images only add to those before.

    size: pixels of a side. Raises DataError for no images or scenes too small to show their textures.
    """
    if images < 1 or size < _SMALLEST or seed < 0:
        raise DataError(
            f"generated sample, {split}",
            f"{images} images of {size} pixels, seed {seed}",
            f"ask for at least 1 image of at least {_SMALLEST} pixels and a seed of at least 0",
        )
    return (scene(seed, SPLITS.index(split), index, f"{split}-{index:05d}", size) for index in range(images))
