"""The records that travel between rooms. Shapes and dtypes are written once, here.

Sizes: B images of this rank, H×W the crop, h×w the embedding grid, n valid pixels, P segments,
C embedding dimensions, L local features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

UNLABELLED = 254
"""A pixel that nobody annotated: it is clustered and contrasted, never used as annotation."""

IGNORED = 255
"""A pixel that takes no part at all: removed before clustering; crops are padded with it."""


@dataclass(frozen=True)
class Sample:
    """One picture with its weak labels, as a shard holds it (nothing resized, nothing normalised)."""

    key: str
    image: np.ndarray
    """[H, W, 3] uint8, RGB"""
    semantic: np.ndarray
    """[H, W] uint8: 0..K-1 labelled, 254 unlabelled, 255 ignored"""
    regions: np.ndarray
    """[H, W] uint16: over-segmentation, any ids"""
    tags: tuple[int, ...] | None
    """classes known to be in the picture, without the background; None = unknown, () = known to hold none"""
    mask: np.ndarray | None = None
    """[H, W] uint8 ground truth, evaluation only"""


@dataclass(frozen=True)
class Batch:
    """This rank's part of a global batch after augmentation."""

    keys: tuple[str, ...]
    position: Tensor
    """[B] int64: place of each image in the global batch"""
    image: Tensor
    """[B, 3, H, W] float32, normalised by the ImageNet mean and deviation"""
    semantic: Tensor
    """[B, H, W] uint8"""
    regions: Tensor
    """[B, H, W] int32"""
    tags: Tensor
    """[B, K] bool"""
    tags_known: Tensor
    """[B] bool"""
    epoch: int
    """epoch of the first image of the global batch"""

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Pixels:
    """All valid pixels of this rank, image-major, then row-major."""

    embedding: Tensor
    """[n, C] unit vectors u, with gradient"""
    feature: Tensor
    """[n, C+L] unit vectors of (scaled u, local features), with gradient"""
    semantic: Tensor
    """[n] int64: 0..K-1, or 254"""
    region: Tensor
    """[n] int64"""
    segment: Tensor
    """[n] int64: row of this rank's Segments"""
    image: Tensor
    """[n] int64: index into the rank's images"""


@dataclass(frozen=True)
class Segments:
    """This rank's segments, ordered by (image, cluster, semantic, region)."""

    prototype: Tensor
    """[P, C] unit vectors μ, with gradient"""
    prototype_feature: Tensor
    """[P, C+L] unit vectors, with gradient"""
    semantic: Tensor
    """[P] int64: 0..K-1, or 254"""
    region: Tensor
    """[P] int64"""
    image: Tensor
    """[P] int64: index into the rank's images"""

    def __len__(self) -> int:
        return len(self.semantic)


@dataclass(frozen=True)
class Rows:
    """Segments as others see them: this step's of all ranks, those a bank remembers, or both."""

    prototype: Tensor
    """[P, C] unit vectors μ"""
    semantic: Tensor
    """[P] int64: 0..K-1, or 254"""
    tags: Tensor
    """[P, K] bool: tags of the segment's image"""
    tags_known: Tensor
    """[P] bool"""
    image: Tensor
    """[P] int64: number of the segment's image, unique over the steps a bank remembers"""
    propagated: Tensor
    """[P] int64: class by feature affinity, 254 where no labelled segment is near; `semantic` without it"""

    def __len__(self) -> int:
        return len(self.semantic)


@dataclass(frozen=True)
class Relation:
    """Who attracts and who repels whom. The masks factor through groups of pixels."""

    group: Tensor
    """[n] int64: group of each pixel, -1 = takes no part"""
    attract: Tensor
    """[G, P] bool: candidates that attract the pixels of a group (the own segment is excluded by the loss)"""
    repel: Tensor
    """[G, P] bool: candidates that repel the pixels of a group"""
    concentration: float
    """κ, at most 40: the loss uses the fixed shift exp(κ(s - 1)), which underflows float32 beyond"""
    own_repels: bool = False
    """the release's double count: the own segment stays among the negatives if `repel` names it"""


@dataclass(frozen=True)
class Block:
    """A range of pixels contrasted with a range of candidates, under one relation or several."""

    rows: slice
    columns: slice
    relations: tuple[Relation, ...]
    """over these rows and columns only"""
    scale: tuple[Tensor | float, ...]
    """what each relation's sum over the rows is multiplied by (1 ÷ count)"""


@dataclass(frozen=True)
class Contrast:
    """What the loss says of a step."""

    loss: Tensor
    """scalar with gradient: Σ weight · value"""
    values: Tensor
    """[R] each relation's scaled sum, without weight or gradient"""
    without_positive: Tensor
    """[R] int64: pixels that fell back to their own segment"""
