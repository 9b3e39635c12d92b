"""Labels read out of a trained network: by its classifier, and by the nearest labelled segments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from spml_dist.bank.search.faiss_index import build, search
from spml_dist.inference import neighbours, whole_image
from spml_dist.inference.crf import refined
from spml_dist.inference.scores import scores
from spml_dist.inference.views import Views
from spml_dist.inference.whole_image import EmbeddedImage
from spml_dist.method.prototypes import prototypes
from spml_dist.model.segmenter import Segmenter


class Settings(Protocol):
    """The section `evaluation` of a configuration."""

    grid: tuple[int, int]
    iterations: int
    neighbours: int
    longer_side: int | None


@dataclass(frozen=True)
class LabelledPrototypes:
    """Labelled prototypes of many images, to search in."""

    prototype: np.ndarray
    """[r, C] float32 unit vectors"""
    label: np.ndarray
    """[r] int64 in 0..K-1"""


@dataclass(frozen=True)
class Reading:
    """What is read out of an image."""

    segments: np.ndarray
    """[H, W] int32, of the first look; one where the classifier alone has seen windows"""
    predictions: dict[str, np.ndarray]
    """read-out → [H, W] uint8, 0..K-1"""
    hits: float = 0.0
    """of the queries' neighbours, those with the query's true label, in queries"""
    queries: int = 0
    """segments whose true label is known"""


@dataclass(frozen=True)
class ReadOuts:
    """Reads images. Pickles.

    Several views are averaged: probabilities of the classifier, shares of the neighbours' votes. Windows are
    the classifier's alone; neighbours see the image whole, as the images that their prototypes are of.
    """

    model: Segmenter
    num_classes: int
    settings: Settings
    views: Views
    crf: bool
    """refine both by a dense CRF"""
    names: tuple[str, ...]
    """read-outs that are wanted: "classifier", and what the neighbours are called"""
    labelled: LabelledPrototypes | None
    """what neighbours are searched in; None without them"""

    @cached_property
    def _index(self) -> Any:
        # Exact search: an evaluation does not depend on an index's recall.
        assert self.labelled is not None
        return build(self.labelled.prototype)

    # The index is built where it is used.
    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_index"}

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> Reading:
        """image: [H, W, 3] uint8; mask: [H, W] uint8, the truth, by which neighbours are judged."""
        total: dict[str, np.ndarray] = {}
        drawn: np.ndarray | None = None
        hits, queries = 0.0, 0
        if windowed := "classifier" in self.names and self.views.is_windowed(*image.shape[:2]):
            total["classifier"] = scores(self.model, image, self.views)
        # Whole images may be too large to be looked at; the neighbours alone cannot do without.
        looks = () if windowed and self.labelled is None else self.views.looks
        for scale, mirrored in looks:
            seen = np.ascontiguousarray(image[:, ::-1]) if mirrored else image
            embedded = whole_image.embed(self.model, seen, self.views.longer_side, scale)
            if drawn is None or self.labelled is not None:
                segments = whole_image.segments(embedded, self.settings.grid, self.settings.iterations)
                drawn = embedded.geometry.to_image(segments) if drawn is None else drawn
            if "classifier" in self.names and not windowed:
                logits = torch.from_numpy(whole_image.classify(self.model, embedded))
                self._add(total, "classifier", logits.softmax(dim=0).numpy(), mirrored)
            if self.labelled is not None:
                shares, near, owner = self._votes(embedded, segments)
                self._add(total, self.names[-1], shares, mirrored)
                if not mirrored:
                    truth = labels_of(embedded, segments, mask, self.num_classes)[owner]
                    known = truth >= 0
                    right = neighbours.precision(near[known], self.labelled.label, truth[known])
                    hits, queries = hits + right * float(known.sum()), queries + int(known.sum())
        drawn = np.zeros(image.shape[:2]) if drawn is None else drawn
        predictions = {name: self._decided(image, total[name]) for name in self.names}
        return Reading(drawn.astype(np.int32), predictions, hits, queries)

    def _add(self, total: dict[str, np.ndarray], name: str, part: np.ndarray, mirrored: bool) -> None:
        """Add what a look says, turned back."""
        if mirrored:
            part = part[:, :, ::-1]
            part = part[self.views.mirrored_classes(len(part))]
        part = part / self.views.count if self.views.count > 1 else part
        total[name] = total[name] + part if name in total else part

    def _votes(
        self, embedded: EmbeddedImage, segments: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Share of each pixel's votes [K, H, W] float32; neighbours of each query, and its segment."""
        assert self.labelled is not None
        queries, owner = prototypes_of(embedded, segments)
        _, near = search(self._index, queries, self.settings.neighbours)
        # Numbers of clusters that ended empty stay 0: no cell asks for them.
        shares = np.zeros((segments.max() + 1, self.num_classes), np.float32)
        shares[owner] = neighbours.tally(near, self.labelled.label, self.num_classes) / near.shape[1]
        return embedded.geometry.to_image(shares[segments]).transpose(2, 0, 1), near, owner

    def _decided(self, image: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        probabilities = refined(image, np.ascontiguousarray(probabilities)) if self.crf else probabilities
        return probabilities.argmax(axis=0).astype(np.uint8)


def prototypes_of(embedded: EmbeddedImage, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit prototype of each segment that has a cell: ([s, C] float32, [s] number of the segment)."""
    inside = torch.from_numpy(segments >= 0)
    numbers = torch.from_numpy(segments)[inside]
    vectors = prototypes(
        embedded.unit[inside.to(embedded.unit.device)],
        numbers.to(embedded.unit.device),
        int(numbers.max()) + 1,
    )
    owner = np.unique(numbers.numpy())
    return vectors.cpu().numpy()[owner], owner


def labels_of(
    embedded: EmbeddedImage, segments: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Majority label of each segment over its labelled cells, -1 where it has none."""
    # Labels come to the grid rather than segments to the image: a cell votes once, as in training.
    cells = embedded.geometry.to_grid(labels)
    voting = (segments >= 0) & (cells < num_classes)
    return neighbours.majority(cells[voting], segments[voting], segments.max() + 1, num_classes)
