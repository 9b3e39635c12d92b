"""The records that travel between rooms. Shapes and dtypes are written once, here.

Sizes: B images of this rank, H×W the crop, h×w the embedding grid, n valid pixels, P segments,
C embedding dimensions, L local features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from torch import Tensor

UNLABELLED = 254
"""A pixel that nobody annotated: it is clustered and contrasted, never used as annotation."""

IGNORED = 255
"""A pixel that takes no part at all: removed before clustering; crops are padded with it."""

ANNOTATED = 255
"""confidence of a pixel that people annotated, or that takes no part: no labeler changes it"""

LABELERS = ("cam", "walk", "cam-walk", "neighbours")
"""kinds of annotation that labelers make; no kind of a folder is called so"""

Box = tuple[int, float, float, float, float]
"""class, x0, y0, x1, y1 in pixels from the image's top left corner; x1 and y1 are exclusive"""


Products = Literal["float32", "bfloat16"]
"""number format of the factors of large products"""

Channels = tuple[float, float, float]
"""a number for red, green and blue"""


@dataclass(frozen=True)
class Normalisation:
    """What a network's images are normalised by: (RGB in [0, 1] - mean) / deviation."""

    mean: Channels
    deviation: Channels

    @classmethod
    def of(cls, facts: Mapping) -> Normalisation:
        """From what JSON holds under "mean" and "deviation"; ImageNet's where it holds none, as files of
        earlier releases."""
        if "mean" not in facts:
            return IMAGENET
        return cls(tuple(facts["mean"]), tuple(facts["deviation"]))


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""of most networks, and of those that start from no weights"""


@dataclass(frozen=True)
class Sample:
    """One image with its weak labels, as a shard holds it (nothing resized, nothing normalised)."""

    key: str
    image: np.ndarray
    """[H, W, 3] uint8, RGB"""
    semantic: np.ndarray
    """[H, W] uint8: 0..K-1 labelled, 254 unlabelled, 255 ignored"""
    regions: np.ndarray
    """[H, W] uint16: over-segmentation, any ids"""
    tags: tuple[int, ...] | None
    """classes known to be in the image, without the background; None = unknown, () = known to hold none"""
    mask: np.ndarray | None = None
    """[H, W] uint8 ground truth, evaluation only"""
    kinds: tuple[str, ...] = ()
    """kinds of annotation that the image has; () = nobody annotated it"""
    boxes: tuple[Box, ...] | None = None
    """boxes of all its objects; None = nobody drew them, () = known to show no object"""
    contradicted: int = 0
    """pixels of which two kinds say different classes"""
    unlisted: tuple[int, ...] = ()
    """classes that its pixels or boxes show and its list of tags leaves out"""
    confidence: np.ndarray | None = None
    """[H, W] uint8, of what a labeler has labelled: 255 annotated by people or ignored, 1..254 how sure a
    labeler is, 0 unlabelled; None = no labeler has been at work, all labels are annotations"""


@dataclass(frozen=True)
class Batch:
    """This rank's part of a global batch after augmentation."""

    keys: tuple[str, ...]
    position: Tensor
    """[B] int64: place of each image in the global batch"""
    image: Tensor
    """[B, 3, H, W] float32, normalised by the mean and deviation of the network's weights"""
    semantic: Tensor
    """[B, H, W] uint8"""
    regions: Tensor
    """[B, H, W] int32"""
    tags: Tensor
    """[B, K] bool"""
    tags_known: Tensor
    """[B] bool"""
    window: Tensor
    """[B, 4] float32: where the crop lies in its image, as (top, left, bottom, right) in shares of the
    image's height and width; outside 0..1 where it is padded, left > right where it is mirrored"""
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
    stands_for: Tensor | None = None
    """[n] float32: how many pixels of its segment each is drawn for, 0 = it is not; None = all are here"""


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
    box: Tensor
    """[P, 4] float32: (top, left, bottom, right) on the embedding's grid, in shares of the crop's sides"""
    area: Tensor
    """[P] float32: share of the crop's pixels"""

    def __len__(self) -> int:
        return len(self.semantic)


@dataclass(frozen=True)
class Candidates:
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
    """[P] int64: stable hash of the key of the segment's image"""
    propagated: Tensor
    """[P] int64: class by feature affinity, 254 where no labelled segment is near; `semantic` without it"""

    def __len__(self) -> int:
        return len(self.semantic)


@dataclass(frozen=True)
class BatchImages:
    """What is known of a rank's images beside their pixels."""

    keys: tuple[str, ...]
    """[B] sample keys; () where no bank tells the images apart"""
    position: Tensor
    """[B] int64: place of each image in the global batch"""
    tags: Tensor
    """[B, K] bool"""
    tags_known: Tensor
    """[B] bool"""
    window: Tensor
    """[B, 4] float32, as `Batch.window`"""


@dataclass(frozen=True)
class BatchSegments:
    """The segments of a batch: this rank's with their pixels, and those of all ranks as others see them."""

    pixels: Pixels
    segments: Segments
    images: BatchImages
    """of this rank"""
    candidates: Candidates
    """the segments of all ranks in rank order, with gradient"""
    first: int
    """row of the candidates at which this rank's segments begin"""
    confidence: Tensor
    """[P] float32: how sure the propagated class of each of this rank's segments is"""

    @property
    def own(self) -> slice:
        """Rows of the candidates that are this rank's segments."""
        return slice(self.first, self.first + len(self.segments))

    @property
    def propagated(self) -> Tensor:
        """[P] int64: class of each of this rank's segments by feature affinity, or 254"""
        return self.candidates.propagated[self.own]


@dataclass(frozen=True)
class BankRows:
    """Segments as the global bank keeps and sends them."""

    vector: Tensor
    """[N, C] unit vectors, in the bank's storage format (float32, float16 or bfloat16)"""
    image: Tensor
    """[N] int64: stable hash of the image's key"""
    check: Tensor
    """[N] int32: a second hash of it, which tells two keys of one hash apart"""
    segment: Tensor
    """[N] int32: number of the segment in its image, from 0"""
    label: Tensor
    """[N] int16: class, -1 = unlabelled"""
    source: Tensor
    """[N] uint8: where the class comes from: 0 nowhere, 1 annotated, 2 propagated"""
    confidence: Tensor
    """[N] float32: share of the neighbours' votes for a propagated class, 1 for an annotated one, else 0"""
    tags: Tensor
    """[N, ceil(K / 63)] int64: bitset of the image's tags, 63 classes a word"""
    tags_known: Tensor
    """[N] bool"""
    step: Tensor
    """[N] int32: global step that wrote it"""
    position: Tensor
    """[N] int32: place of the image in that step's global batch"""
    area: Tensor
    """[N] float32: share of the image's pixels"""
    box: Tensor
    """[N, 4] float16: (top, left, bottom, right) in shares of the image's sides"""

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Neighbours:
    """The rows nearest to each of q queries, best first; equal ones by (image, segment)."""

    similarity: Tensor
    """[q, k] float32: cosine; -inf where there are fewer than k"""
    image: Tensor
    """[q, k] int64"""
    segment: Tensor
    """[q, k] int32; -1 where there are fewer than k"""
    label: Tensor
    """[q, k] int16: class, -1 = unlabelled or no row"""


@dataclass(frozen=True)
class BankCounts:
    """How many rows of the whole bank a step's candidates stand for, counted and not estimated."""

    by_class: Tensor
    """[K] int64: rows annotated with each class"""
    by_propagated: Tensor
    """[K] int64: rows annotated with or propagated to each class"""
    sharing: Tensor
    """[P] int64: rows that share a tag with each of this step's segments (of all ranks)"""


@dataclass(frozen=True)
class BankCandidates:
    """What a bank gives to a step: a function of the global batch, the same on every rank."""

    rows: Candidates
    """[M] candidates without gradient"""
    log_weight: Tensor | None = None
    """[M] float32: log of how many rows of the bank each stands for; None = each for itself"""
    counts: BankCounts | None = None
    """None = the candidates stand for themselves alone"""
    labelled: Neighbours | None = None
    """nearest annotated rows of each of this step's segments; None where feature affinity needs none"""


class SegmentBank(Protocol):
    """What a training needs of a bank. All methods but `len` are collectives: every rank calls them in the
    same order."""

    def candidates(self, segments: Candidates, step: int, measure: bool = False) -> BankCandidates:
        """What the bank adds to a step's candidates: what was published up to the step before.

        segments: the step's segments, of all ranks; step: counted from 0; measure: also how well the bank
        does, for the next `report`.
        """

    def publish(self, parts: Sequence[BatchSegments], step: int) -> None:
        """Remember a step's segments, of all its micro-batches, copied and without gradient."""

    def report(self, step: int) -> dict[str, float]:
        """How the bank does since the last report, by names for the log. step: steps done so far."""

    def copied(self, previous: Path | None = None) -> BankCopy:
        """The bank as it is, with what was published last.

        previous: folder of an earlier copy, which may share its files with this one.
        """

    def restore(self, folder: Path) -> None:
        """Fill an empty bank with what a copy of it wrote, on any number of ranks.

        Raises RunError on every rank for a bank of another kind, and for a missing or damaged file, which is
        named.
        """

    def __len__(self) -> int:
        """Rows of this rank."""


class BankCopy(Protocol):
    """A bank at a step, in host memory: it is written while the bank goes on. No method is a collective; any
    thread may call them."""

    def write(self, folder: Path) -> dict[str, Any]:
        """Write this rank's part into a folder that all ranks see; what `finish` has to know of it, as plain
        data. Raises RunError."""

    def finish(self, folder: Path, parts: list[dict[str, Any]]) -> None:
        """Make a whole of what all ranks have written; on one of them. parts: what each `write` returned, in
        rank order. Raises RunError."""


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
    attracting: Tensor | None = None
    """[G] int64: how many segments attract each group, itself included, where the candidates stand for more
    than themselves; None = count the candidates"""


@dataclass(frozen=True)
class Block:
    """A range of pixels contrasted with a range of candidates, under one relation or several."""

    rows: slice
    columns: slice
    relations: tuple[Relation, ...]
    """over these rows and columns only"""
    scale: tuple[Tensor | float, ...]
    """what each relation's sum over the rows is multiplied by (1 ÷ count); [rows] for each row's own"""
    ranges: tuple[Tensor, Tensor] | None = None
    """where the masks name few candidates: [rows, 2] int32, the range of columns that they name for each row,
    and [columns, 2] int32, the range of rows for which they name each column; None = any"""


@dataclass(frozen=True)
class Contrast:
    """What the loss says of a step."""

    loss: Tensor
    """scalar with gradient: Σ weight · value"""
    values: Tensor
    """[R] each relation's scaled sum, without weight or gradient"""
    without_positive: Tensor
    """[R] int64: pixels that fell back to their own segment"""
