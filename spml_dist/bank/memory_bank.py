"""The memory bank for somebody else's trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from spml_dist import comm
from spml_dist.bank.rows import bitset, of_segments
from spml_dist.bank.search.filters import Kind, Queries
from spml_dist.bank.sharded import LookupPlan, ShardedBank
from spml_dist.bank.snapshot_manifest import read_manifest
from spml_dist.config.method_models import BankConfig
from spml_dist.hashing import image_hash
from spml_dist.method.kmeans import unit
from spml_dist.records import (
    UNLABELLED,
    BankCandidates,
    BatchImages,
    BatchSegments,
    Candidates,
    Neighbours,
    Segments,
)

KINDS: tuple[Kind, ...] = ("shares_tag", "shares_none", "same_class", "other_class")


class MemoryBank:
    """Every segment of a data set, by image: a `SegmentBank` in one process, or spread over many.

        bank = MemoryBank(dim=64, classes=21)
        for step, (prototypes, labels, keys) in enumerate(segments_of_my_trainer):
            candidates = bank.candidates(bank.segments(prototypes, labels, keys), step)
            ...                                       # contrast with candidates.rows.prototype
            bank.add(prototypes, labels, keys, step=step)

    An image that comes again replaces its segments. With torch.distributed every rank gives its own segments
    and gets the same candidates; all methods but `len` are collectives.

    `prototypes` are [P, C] floats of any norm and `labels` [P] integers, 0..K-1 an annotated class, anything
    else none; `keys` name the image of each segment, and one rank gives all segments of an image in one call;
    `tags`, [P, K] bool, are the classes known to be in each segment's image, and `tags_known`, [P] bool, says
    for which images they are known (None: all; without tags: none). What does not fit the bank or each other
    is a ValueError, and the bank is what it was.
    """

    def __init__(
        self,
        dim: int,
        classes: int | Sequence[str],
        *,
        candidates: str = "nearest+sampled",
        capacity: int = 200_000,
        partitions: int = 64,
        storage: str = "float32",
        warmup: int = 0,
        max_age: int | None = None,
        queries: int = 256,
        neighbours: int = 16,
        max_candidates: int = 1024,
        sampled: int = 1024,
        own_images: bool = False,
        exact_rows: int = 10_000,
        gpu_index: bool = False,
        min_recall: float = 0.95,
        ignore_classes: Sequence[int] = (),
        labelled: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        """dim: C; classes: K, or their names. The others are the configuration's `bank`, but for
        ignore_classes, which do not count as shared tags; labelled: also give the annotated neighbours of
        each segment, from which feature affinity propagates classes; seed: of the draws; device: of the rows.

        Raises pydantic's ValidationError, a ValueError, for a value that the configuration does not take, and
        ValueError for "recent", a bank that has no rows of images.
        """
        if candidates == "recent":
            raise ValueError("candidates: recent is spml_dist.bank.recent.RecentBank, which takes no vectors")
        names = [str(each) for each in (range(classes) if isinstance(classes, int) else classes)]
        settings = {
            "candidates": candidates,
            "steps": 0,
            "capacity": capacity,
            "partitions": partitions,
            "storage": storage,
            "warmup": warmup,
            "max_age": max_age,
            "queries": queries,
            "neighbours": neighbours,
            "max_candidates": max_candidates,
            "sampled": sampled,
            "own_images": own_images,
            "exact_rows": exact_rows,
            "gpu_index": gpu_index,
            "min_recall": min_recall,
            "encoder_momentum": None,
        }
        plan = LookupPlan(KINDS, votes=labelled, ignore_classes=tuple(ignore_classes))
        self.bank = ShardedBank(
            BankConfig.model_validate(settings), dim, len(names), plan, seed, torch.device(device), names
        )

    def __len__(self) -> int:
        """Rows of this rank."""
        return len(self.bank)

    def segments(
        self,
        prototypes: Tensor,
        labels: Tensor,
        keys: Sequence[str],
        tags: Tensor | None = None,
        tags_known: Tensor | None = None,
    ) -> Candidates:
        """A step's segments of all ranks, as `candidates` takes them; prototypes keep their gradient."""
        self._require(prototypes, labels=labels, keys=keys, tags=tags, tags_known=tags_known)
        tags, tags_known = self._tags(labels, tags, tags_known)
        semantic = self._semantic(labels)
        columns = (unit(prototypes), semantic, tags, tags_known, image_hash(keys, labels.device), semantic)
        counts = comm.gather_counts(len(labels), labels.device)
        return Candidates(*(_gathered(column, counts) for column in columns))

    def candidates(self, segments: Candidates, step: int, measure: bool = False) -> BankCandidates:
        """`SegmentBank.candidates`. segments: of all ranks, from `segments` or `SPMLLoss.segments`."""
        self._require(segments.prototype, tags=segments.tags)
        return self.bank.candidates(segments, step, measure)

    def add(
        self,
        prototypes: Tensor,
        labels: Tensor,
        keys: Sequence[str],
        tags: Tensor | None = None,
        tags_known: Tensor | None = None,
        *,
        step: int,
    ) -> None:
        """Remember a step's segments, copied and without gradient.

        Raises RunError on every rank for what no bank may hold, such as an embedding that is not finite: the
        bank is what it was then.
        """
        self._require(prototypes, labels=labels, keys=keys, tags=tags, tags_known=tags_known)
        tags, tags_known = self._tags(labels, tags, tags_known)
        names = list(dict.fromkeys(keys))
        number = {key: place for place, key in enumerate(names)}
        image = torch.tensor([number[key] for key in keys], dtype=torch.int64, device=labels.device)
        order = torch.argsort(image, stable=True)
        # A segment's number in its image is its place among those of one key.
        first = order[torch.searchsorted(image[order], torch.arange(len(names), device=image.device))]
        before = sum(comm.gather_counts(len(names), image.device)[: comm.rank()])
        images = BatchImages(
            keys=tuple(names),
            position=torch.arange(len(names), device=image.device) + before,
            tags=tags[first],
            tags_known=tags_known[first],
            window=torch.tensor([0.0, 0.0, 1.0, 1.0], device=image.device).expand(len(names), 4),
        )
        vector, semantic = unit(prototypes.detach())[order], self._semantic(labels)[order]
        nowhere = torch.zeros(len(order), device=image.device)
        segments = Segments(
            prototype=vector,
            prototype_feature=vector,
            semantic=semantic,
            region=torch.zeros_like(order),
            image=image[order],
            box=nowhere[:, None].expand(-1, 4),
            area=nowhere,
        )
        confidence = (semantic < self.bank.classes).float()
        storage = self.bank.settings.storage
        self.bank.add(of_segments(segments, images, semantic, confidence, step, storage), names)
        self.bank.settle()

    def publish(self, parts: Sequence[BatchSegments], step: int) -> None:
        """`SegmentBank.publish`, of what `SPMLLoss` gives. Raises ValueError for images without keys."""
        if any(len(part.images.keys) != len(part.images.position) for part in parts):
            raise ValueError("a bank tells images by their keys: give keys= to SPMLLoss.segments")
        for part in parts:
            self._require(part.candidates.prototype, tags=part.candidates.tags)
        self.bank.publish(parts, step)
        self.bank.settle()

    def search(
        self,
        vectors: Tensor,
        k: int,
        filter: Kind = "any",
        *,
        keys: Sequence[str] | None = None,
        labels: Tensor | None = None,
        tags: Tensor | None = None,
    ) -> Neighbours:
        """The k rows of all ranks nearest to each of this rank's vectors, best first.

        vectors: [Q, C] of any norm; filter: "any" row, those "labelled", those of the "same_class" as labels
        or of an "other_class", those whose image "shares_tag" or "shares_none" with tags, [Q, K] bool; keys:
        images of the vectors, whose own rows are left out. Exact up to exact_rows rows of a rank, on
        average; above, at a recall of about min_recall.
        """
        self._require(vectors, keys=keys, labels=labels, tags=tags)
        if filter not in get_args(Kind):
            raise ValueError(f"filter is {filter!r}: one of {', '.join(get_args(Kind))}")
        count, device = len(vectors), vectors.device
        image = image_hash(["" for _ in range(count)] if keys is None else keys, device)
        tags, tags_known = self._tags(vectors, tags, None)
        semantic = self._semantic(torch.full((count,), -1, device=device) if labels is None else labels)
        label = torch.where(semantic < self.bank.classes, semantic, -1).short()
        columns = (unit(vectors.detach()), image, label, bitset(tags), tags_known)
        counts = comm.gather_counts(count, device)
        nearest = self.bank.nearest(Queries(*(_gathered(column, counts) for column in columns)), filter, k)
        first = sum(counts[: comm.rank()])
        own = slice(first, first + count)
        return Neighbours(*(column[own] for column in vars(nearest).values()))

    def report(self, step: int) -> dict[str, float]:
        """`SegmentBank.report`."""
        return self.bank.report(step)

    def save(self, folder: Path | str) -> None:
        """Write a snapshot, which `load` and `spml-dist bank inspect` read; a collective. Raises RunError on
        every rank if one cannot."""
        self.bank.save(Path(folder))

    def restore(self, folder: Path | str) -> None:
        """`SegmentBank.restore`."""
        self.bank.restore(Path(folder))

    @classmethod
    def load(cls, folder: Path | str, **options) -> MemoryBank:
        """The bank that `save` wrote, on any number of ranks. options: arguments of the constructor, where
        they are not the defaults; dim, classes, capacity, partitions and storage are the snapshot's."""
        manifest = read_manifest(Path(folder))
        saved = {
            "capacity": manifest.capacity,
            "partitions": manifest.shards,
            "storage": manifest.storage,
        }
        bank = cls(manifest.dim, manifest.classes, **saved | options)
        bank.restore(folder)
        return bank

    def _semantic(self, labels: Tensor) -> Tensor:
        """[P] int64: annotated classes, 254 for none."""
        known = (labels >= 0) & (labels < self.bank.classes)
        return torch.where(known, labels.long(), UNLABELLED)

    def _tags(self, like: Tensor, tags: Tensor | None, known: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tags, [P, K] bool, and for which they are known, [P] bool, of segments as `like`, on its device."""
        nothing = torch.zeros(len(like), device=like.device, dtype=torch.bool)
        if tags is None:
            return nothing[:, None].repeat(1, self.bank.classes), nothing
        return tags.to(nothing), ~nothing if known is None else known.to(nothing)

    def _require(self, vectors: Tensor, **columns: Tensor | Sequence[str] | None) -> None:
        """Raise ValueError unless there is a value of each column for every vector, and all fit the bank."""
        if vectors.ndim != 2 or vectors.shape[1] != self.bank.dim:
            raise ValueError(f"vectors are {list(vectors.shape)}, and this bank's are [P, {self.bank.dim}]")
        for name, column in columns.items():
            if column is not None and len(column) != len(vectors):
                raise ValueError(f"{name} are {len(column)}, and there are {len(vectors)} vectors")
        tags = columns.get("tags")
        if isinstance(tags, Tensor) and tags.shape[1:] != (self.bank.classes,):
            raise ValueError(f"tags are {list(tags.shape)}, and this bank has {self.bank.classes} classes")


def _gathered(column: Tensor, counts: Sequence[int]) -> Tensor:
    """A column of all ranks, [sum, ...], in rank order; a collective."""
    if column.is_floating_point():
        return comm.gather_rows(column, counts)
    return comm.gather_rows(column.long(), counts).to(column.dtype)  # gloo sends neither int16 nor bool
