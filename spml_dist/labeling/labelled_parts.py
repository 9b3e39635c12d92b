"""A pack read part by part and labelled on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from spml_dist.data.format.keys import image_id_of
from spml_dist.data.format.manifest import Manifest
from spml_dist.data.pack.pack import Rejection
from spml_dist.data.stream.reader import CorruptSample, Reader
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.errors import DataError, RunError
from spml_dist.labeling.labeler import Labeler
from spml_dist.records import Sample


@dataclass(frozen=True)
class PackParts:
    """The samples of a pack, a tar each. Pickles."""

    shards: str
    """folder or address of the pack"""
    manifest: Manifest
    cache: ShardCache = field(default_factory=ShardCache)

    def __call__(self, part: int) -> Iterator[tuple[Sample, bytes] | Rejection]:
        """The samples of one tar, each with its own JPEG, or why it cannot be used.

        Raises RunError where the tar cannot be read, which says nothing against those that are finished.
        """
        reader = Reader(self.shards, self.manifest, cache=self.cache)
        for index in range(self.manifest.shards[part].samples):
            try:
                yield reader.read_encoded(part, index)
            except CorruptSample as error:
                yield Rejection(image_id_of(error.key), str(error))
            except DataError as error:
                remedy = f"{error.remedy}; then the same command goes on"
                raise RunError(error.what, error.value, remedy) from error


@dataclass(frozen=True)
class LabelledParts:
    """The same, labelled. Pickles."""

    parts: PackParts
    label: Labeler

    def __call__(self, part: int) -> Iterator[tuple[Sample, bytes] | Rejection]:
        """As `PackParts`."""
        for read in self.parts(part):
            if isinstance(read, Rejection):
                yield read
            else:
                sample, jpeg = read
                with one_thread():
                    labelled = self.label(sample)
                yield labelled, jpeg


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread, as each of several workers does: sums in another order differ in their last
    digit, and what is written is to be the same for any number of workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
