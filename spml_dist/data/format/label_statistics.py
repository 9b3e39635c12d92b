"""What annotations amount to, counted sample by sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from spml_dist.data.format.keys import image_id_of
from spml_dist.data.format.manifest import NAMED, LabelCounts
from spml_dist.errors import DataError
from spml_dist.records import Sample


class LabelStatistics:
    """Counts samples as they pass, and refuses a key that comes twice."""

    def __init__(self, num_classes: int):
        self.keys: set[str] = set()
        self.kinds: Counter[str] = Counter()
        self.labelled_images = self.of_no_kind = self.tags_unknown = self.pixels = self.contradicted = 0
        # By class: labelled pixels, and images of three sorts.
        self.labelled, self.tagged, self.unseen, self.unlisted = np.zeros((4, num_classes), np.int64)
        self.named_unseen: list[list[str]] = [[] for _ in range(num_classes)]
        self.named_unlisted: list[list[str]] = [[] for _ in range(num_classes)]

    @property
    def samples(self) -> int:
        """Samples counted so far."""
        return len(self.keys)

    def add(self, sample: Sample) -> None:
        """Count one sample. Raises DataError if its key came before."""
        if sample.key in self.keys:
            raise DataError(f"{sample.key}: two samples of one key", None, "give every image its own id")
        self.keys.add(sample.key)
        self.kinds.update(sample.kinds)
        self.of_no_kind += not sample.kinds
        # Without the highest values, unlabelled and ignored, which are no classes.
        of_class = np.bincount(sample.semantic.ravel(), minlength=256)[: len(self.labelled)]
        tagged = np.zeros(len(self.tagged), bool)
        tagged[list(sample.tags or ())] = True
        self.labelled += of_class
        self.labelled_images += bool(of_class.any())
        self.pixels += sample.semantic.size
        self.contradicted += sample.contradicted
        self.tags_unknown += sample.tags is None
        self.tagged += tagged
        unseen = tagged & (of_class == 0)
        self.unseen += unseen
        _name(self.named_unseen, np.flatnonzero(unseen), sample.key)
        self.unlisted[list(sample.unlisted)] += 1
        _name(self.named_unlisted, sample.unlisted, sample.key)

    def counts(self) -> LabelCounts:
        """What the samples so far amount to."""
        return LabelCounts(
            images_labelled=self.labelled_images,
            images_unlabelled=self.samples - self.labelled_images,
            images_tags_unknown=self.tags_unknown,
            pixels=self.pixels,
            pixels_labelled=tuple(self.labelled.tolist()),
            images_tagged=tuple(self.tagged.tolist()),
            images_unseen=tuple(self.unseen.tolist()),
            images_unlisted=tuple(self.unlisted.tolist()),
            named_unseen=tuple(map(tuple, self.named_unseen)),
            named_unlisted=tuple(map(tuple, self.named_unlisted)),
            pixels_contradicted=self.contradicted,
            kinds=dict(sorted(self.kinds.items())),
            images_of_no_kind=self.of_no_kind,
        )


def _name(named: list[list[str]], labels: Iterable[int], key: str) -> None:
    """Note the image with each of the classes that has few names yet."""
    for label in labels:
        if len(named[label]) < NAMED:
            named[label].append(image_id_of(key))
