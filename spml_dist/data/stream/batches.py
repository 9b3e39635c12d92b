"""One rank's micro-batches by step: what a loader process makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from spml_dist.data.stream.augment import Augmented, augment, mean_colour, rng_for
from spml_dist.data.stream.plan import Draw, Plan
from spml_dist.data.stream.reader import CorruptSample, Reader
from spml_dist.errors import DataError
from spml_dist.records import IGNORED, IMAGENET, Batch, Normalisation, Sample
from spml_dist.tensor_records import pinned


@dataclass(frozen=True)
class Augmentation:
    """How images become training views; see `augment`."""

    crop: int
    scale: tuple[float, float]
    mirror: bool
    swaps: tuple[tuple[int, int], ...] = ()
    normalisation: Normalisation = IMAGENET
    grey: float = 0.0
    blur: float = 0.0


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch, and the samples that were left out of it: tar, key and reason of each, in one line."""

    batch: Batch
    left_out: tuple[str, ...]

    def pin_memory(self) -> MicroBatch:
        """Called by torch's DataLoader where it pins: from there a GPU copies while the host goes on."""
        return replace(self, batch=pinned(self.batch))


@dataclass(frozen=True)
class MicroBatches(Dataset):
    """The micro-batch of a place (step, micro).

    A corrupt sample is left out if no more than the share `skip_corrupt` of its shard is corrupt, which is
    found out by reading the whole shard: whether a run goes on depends on the data alone, not on who reads
    what when. Its place in the batch is kept by an image of the mean colour with all pixels ignored.
    """

    plan: Plan
    reader: Reader
    augmentation: Augmentation
    rank: int = 0
    world: int = 1
    accumulation: int = 1
    skip_corrupt: float = 0.0
    _corrupt: dict[int, int] = field(default_factory=dict)
    """corrupt samples of the shards that were read whole"""

    def __getitem__(self, place: tuple[int, int]) -> MicroBatch | DataError:
        try:
            return self._micro_batch(*place)
        except DataError as error:
            return error  # as a value: raised in a loader process it would arrive as its traceback's text

    def _micro_batch(self, step: int, micro: int) -> MicroBatch:
        # Before the first sample is needed: the next window is fetched while this one is trained on.
        self.reader.expect(self.plan.shards_around(step))
        left_out: list[str] = []
        draws = self.plan.part(step, self.rank, self.world, micro, self.accumulation)
        samples = [self._sample(draw, left_out) for draw in draws]
        views = [self._view(draw, sample) for draw, sample in zip(draws, samples, strict=True)]
        samples = [self._with_tags_of(sample, view) for sample, view in zip(samples, views, strict=True)]
        epoch = step * self.plan.batch_size // self.plan.samples
        classes = len(self.reader.manifest.classes)
        return MicroBatch(
            collate(draws, samples, views, classes, self.augmentation.crop, epoch), tuple(left_out)
        )

    def _view(self, draw: Draw, sample: Sample) -> Augmented:
        how, labels = self.augmentation, (sample.semantic, sample.regions)
        # By key and epoch, not by rank, step or process: whoever makes the view makes the same.
        rng = rng_for(self.plan.seed, draw.epoch, sample.key)
        size = (how.crop, how.crop)
        colours = how.normalisation, how.grey, how.blur
        return augment(sample.image, labels, rng, size, how.scale, how.mirror, how.swaps, *colours)

    def _with_tags_of(self, sample: Sample, view: Augmented) -> Sample:
        """The sample with the tags of its view: in a mirrored one classes change places."""
        _, _, (_, left, _, right) = view
        if sample.tags is None or left <= right:
            return sample
        partner = {one: other for pair in self.augmentation.swaps for one, other in (pair, pair[::-1])}
        return replace(sample, tags=tuple(partner.get(tag, tag) for tag in sample.tags))

    def _sample(self, draw: Draw, left_out: list[str]) -> Sample:
        try:
            return self.reader.read(draw.shard, draw.index)
        except CorruptSample as error:
            self._require_few(draw.shard, error)
            left_out.append(error.what)
            return _blank(error.key, self.augmentation.normalisation)

    def _require_few(self, shard: int, error: CorruptSample) -> None:
        if not self.skip_corrupt:
            remedy = f"{error.remedy}, or leave out corrupt samples by stream.skip_corrupt"
            raise DataError(error.what, error.value, remedy) from error
        # Once a shard: every process that meets one of its corrupt samples reads it whole.
        if shard not in self._corrupt:
            self._corrupt[shard] = self.reader.corrupt(shard)
        corrupt, samples = self._corrupt[shard], self.reader.manifest.shards[shard].samples
        if corrupt / samples > self.skip_corrupt:
            raise DataError(
                f"{self.reader.name(shard)}: {corrupt} of {samples} samples are corrupt, more than "
                f"stream.skip_corrupt {self.skip_corrupt} allows; one of them: {error.what}",
                error.value,
                error.remedy,
            ) from error


def collate(
    draws: Sequence[Draw],
    samples: Sequence[Sample],
    views: Sequence[Augmented],
    num_classes: int,
    crop: int,
    epoch: int,
) -> Batch:
    """Samples and their augmented views (image, (semantic, regions), window) as a Batch; of no images too."""
    tags = np.zeros((len(draws), num_classes), dtype=bool)
    for row, sample in zip(tags, samples, strict=True):
        row[list(sample.tags or ())] = True
    return Batch(
        keys=tuple(sample.key for sample in samples),
        position=torch.tensor([draw.position for draw in draws], dtype=torch.int64),
        image=_stacked([image for image, _, _ in views], (3, crop, crop), np.float32),
        semantic=_stacked([semantic for _, (semantic, _), _ in views], (crop, crop), np.uint8),
        regions=_stacked([regions for _, (_, regions), _ in views], (crop, crop), np.int32),
        tags=torch.from_numpy(tags),
        tags_known=torch.tensor([sample.tags is not None for sample in samples], dtype=torch.bool),
        window=_stacked([window for _, _, window in views], (4,), np.float32),
        epoch=epoch,
    )


def _stacked(arrays: Sequence[np.ndarray], shape: tuple[int, ...], dtype: type) -> Tensor:
    """[len(arrays), *shape] of a dtype; in a loader process at once in the memory that it shares."""
    if not arrays:
        return torch.from_numpy(np.empty((0, *shape), dtype))
    return default_collate([torch.from_numpy(array.astype(dtype, copy=False)) for array in arrays])


def _blank(key: str, normalisation: Normalisation) -> Sample:
    """An image of one pixel that takes no part."""
    ignored = np.full((1, 1), IGNORED, np.uint8)
    return Sample(key, mean_colour(normalisation)[None, None], ignored, ignored.astype(np.uint16), tags=None)
