"""Rows to fill a bank with: drawn in clusters, or those of a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from spml_dist import comm
from spml_dist.bank.partitions import partition_of
from spml_dist.bank.rows import ANNOTATED, bitset, by_identity, empty
from spml_dist.bank.snapshot import read_shards
from spml_dist.bank.snapshot_manifest import read_manifest
from spml_dist.hashing import image_check, image_hash
from spml_dist.records import BankRows
from spml_dist.tensor_records import concatenate, take

IMAGES, SEGMENTS, SHARDS, STORAGE = 16, 36, 64, "float32"
DIRECTIONS, COSINE, CLASSES, TAGS, TAG_SHARE, ANNOTATED_SHARE = 4_000, 0.8, 21, 20, 0.1, 1 / 3
REAL_COSINE = 0.95
BLOCKS = 32
"""blocks of 16 images that a large batch holds"""


@dataclass(frozen=True)
class Source:
    """Rows in blocks of 16 images, each of which can be drawn again as of a later visit."""

    data: str
    rows: int
    blocks: int
    dim: int
    classes: int
    draw: Callable[[int, int], BankRows]
    """(block, visit) → rows, the same on every rank"""

    def batches(self, visit: int) -> Iterator[BankRows]:
        """This rank's parts of large batches, which cover all images; empty where others have the rest."""
        none = empty(0, self.dim, self.classes, STORAGE)
        for start in range(0, self.blocks, BLOCKS):
            own = range(start + comm.rank(), min(start + BLOCKS, self.blocks), comm.world())
            yield concatenate([none, *(self.draw(block, visit) for block in own)])

    def capacity(self) -> int:
        """Rows in all, if every partition is to hold what the fullest one does."""
        counts = torch.zeros(SHARDS, dtype=torch.int64)
        for block in range(self.blocks):
            counts += torch.bincount(partition_of(self.draw(block, 0).image, SHARDS), minlength=SHARDS)
        return SHARDS * counts.max().item()


def clustered(rows: int, dim: int) -> Source:
    return Source("clustered", rows, -(-rows // (IMAGES * SEGMENTS)), dim, CLASSES, _drawn(rows, dim))


def _drawn(rows: int, dim: int) -> Callable[[int, int], BankRows]:
    size = IMAGES * SEGMENTS
    directions = normalize(torch.randn(DIRECTIONS, dim, generator=torch.Generator().manual_seed(0)), dim=1)
    inner = torch.arange(size) // SEGMENTS
    box = _grid().repeat(IMAGES, 1)

    def draw(block: int, visit: int) -> BankRows:
        g = torch.Generator().manual_seed(block + 1)
        direction = torch.randint(DIRECTIONS, (size,), generator=g)
        tags = torch.zeros(IMAGES, CLASSES, dtype=torch.bool)
        tags[:, 1:] = torch.rand(IMAGES, TAGS, generator=g) < TAG_SHARE
        annotated = torch.rand(size, generator=g) < ANNOTATED_SHARE
        g.manual_seed((visit + 1 << 32) + block)
        keys = [f"{IMAGES * block + image:08d}" for image in range(IMAGES)]
        made = BankRows(
            vector=_near(directions[direction], COSINE, g),
            image=image_hash(keys)[inner],
            check=image_check(keys)[inner],
            segment=(torch.arange(size) % SEGMENTS).int(),
            label=torch.where(annotated, direction % CLASSES, -1).short(),
            source=torch.where(annotated, ANNOTATED, 0).to(torch.uint8),
            confidence=annotated.float(),
            tags=bitset(tags)[inner],
            tags_known=torch.ones(size, dtype=torch.bool),
            step=torch.zeros(size, dtype=torch.int32),
            position=inner.int(),
            area=torch.full((size,), 1 / SEGMENTS),
            box=box,
        )
        return take(made, slice(0, rows - block * size))

    return draw


def real(folder: Path) -> Source:
    """The rows of a snapshot, all of them on every rank; later visits find them turned a little."""
    manifest = read_manifest(folder)
    rows = by_identity(concatenate(list(read_shards(folder))))
    rows = replace(rows, vector=rows.vector.float())
    counts = torch.unique_consecutive(rows.image, return_counts=True)[1]
    starts = [0, *counts.cumsum(0)[IMAGES - 1 :: IMAGES].tolist()]
    starts += [len(rows)] * (starts[-1] < len(rows))

    def draw(block: int, visit: int) -> BankRows:
        some = take(rows, slice(*starts[block : block + 2]))
        generator = torch.Generator().manual_seed((visit << 32) + block)
        return replace(some, vector=_near(some.vector, REAL_COSINE, generator)) if visit else some

    return Source("real", len(rows), len(starts) - 1, manifest.dim, len(manifest.classes), draw)


def _near(vector: Tensor, cosine: float, generator: torch.Generator) -> Tensor:
    """Unit vectors whose cosine to those given is `cosine` on average."""
    noise = torch.randn(vector.shape, generator=generator) * (cosine**-2 - 1) ** 0.5 / vector.shape[1] ** 0.5
    return normalize(vector + noise, dim=1)


def _grid() -> Tensor:
    side = round(SEGMENTS**0.5)
    corner = torch.cartesian_prod(torch.arange(side), torch.arange(side)) / side
    return torch.cat([corner, corner + 1 / side], dim=1).half()
