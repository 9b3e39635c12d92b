"""A recipe's split as a pack, and the generated sample's two."""

from __future__ import annotations

import re
from pathlib import Path

from spml_dist.data.format.manifest import Manifest
from spml_dist.data.generated.sample import LABELS, SPLITS, GeneratedParts
from spml_dist.data.generated.scenes import BACKGROUND, CLASSES
from spml_dist.data.pack.pack import PackDescription, pack_parts, part_sizes
from spml_dist.data.pack.recipe_parts import RecipeParts
from spml_dist.data.recipes.recipe import Recipe
from spml_dist.files.address import join


def pack_recipe(
    recipe: Recipe,
    out: str | Path,
    *,
    name: str | None = None,
    regions: str = "",
    shard_size: int = 256,
    workers: int = 1,
    strict: bool = False,
    fingerprint: str = "",
) -> Manifest:
    """Pack the split that a recipe reads.

    name: of the tars, by default of data set and split; regions: how the recipe makes them, in words;
    shard_size: images of a tar; workers, strict, fingerprint and errors: as of `pack_parts`.
    """
    description = PackDescription(
        name or re.sub(r"[^\w-]", "_", f"{recipe.name}-{recipe.split}"),
        recipe.split,
        recipe.labels,
        recipe.classes,
        recipe.background,
        regions,
    )
    return pack_parts(
        RecipeParts(recipe, shard_size),
        part_sizes(len(recipe.ids), shard_size),
        out,
        description,
        workers=workers,
        strict=strict,
        fingerprint=fingerprint,
    )


def pack_sample(
    out: str | Path,
    *,
    images: int = 160,
    val: int = 40,
    size: int = 160,
    seed: int = 0,
    shard_size: int = 32,
    workers: int = 1,
    fingerprint: str = "",
) -> dict[str, Manifest]:
    """Draw scenes and pack them into OUT/train and OUT/val. Returns the manifest of each split.

    images, val: scenes of each split; size: pixels of a side. The first scene that fails is an error;
    otherwise as `pack_parts`.
    """
    manifests = {}
    for split, count in zip(SPLITS, (images, val), strict=True):
        manifests[split] = pack_parts(
            GeneratedParts(split, count, shard_size, size, seed),
            part_sizes(count, shard_size),
            join(out, split),
            PackDescription(f"sample-{split}", split, LABELS, CLASSES, BACKGROUND, "felzenszwalb"),
            workers=workers,
            strict=True,
            fingerprint=fingerprint,
        )
    return manifests
