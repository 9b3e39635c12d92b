"""The generated sample: a small data set that needs no download, the same for the same seed everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spml_dist.data.format.members import encode_jpeg
from spml_dist.data.generated.scenes import scene
from spml_dist.errors import DataError
from spml_dist.records import Sample

SPLITS = ("train", "val")
LABELS = "scribbles"
_SMALLEST = 64


def generated(split: str, images: int, *, size: int = 160, seed: int = 0, first: int = 0) -> Iterator[Sample]:
    """The scenes of a split, with scribbles and whole masks; more images only add to those before.

    size: pixels of a side. first: number of the scene to begin with.
    Raises DataError for no images or scenes too small to show their textures.
    """
    if images < 1 or size < _SMALLEST or seed < 0:
        raise DataError(
            f"generated sample, {split}",
            f"{images} images of {size} pixels, seed {seed}",
            f"ask for at least 1 image of at least {_SMALLEST} pixels and a seed of at least 0",
        )
    number = SPLITS.index(split)
    return (scene(seed, number, index, f"{split}-{index:05d}", size) for index in range(first, images))


@dataclass(frozen=True)
class GeneratedParts:
    """Part number n of a generated split, for `pack_parts`: its scenes from n·part on."""

    split: str
    images: int
    part: int
    """images of a part"""
    size: int
    seed: int

    def __call__(self, number: int) -> Iterator[tuple[Sample, bytes]]:
        """Samples and their JPEGs, one at a time."""
        first, end = number * self.part, min(self.images, (number + 1) * self.part)
        for sample in generated(self.split, end, size=self.size, seed=self.seed, first=first):
            yield sample, encode_jpeg(sample)
