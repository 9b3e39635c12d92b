"""How good is a model? Both read-outs over a whole split: the classifier and the nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from spml_dist.bank.search.faiss_index import build, search
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.stream.reader import samples
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.errors import DataError
from spml_dist.inference import metrics, neighbours, whole_image
from spml_dist.inference.whole_image import EmbeddedImage
from spml_dist.method.prototypes import prototypes
from spml_dist.model.segmenter import Segmenter
from spml_dist.progress import progress_bar
from spml_dist.records import Sample

NAMED = 3
"""images that an error lists by their keys"""


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
class EvaluatedImage:
    """One image of the split and what the model predicts for it."""

    number: int
    """place in the split, from 0"""
    sample: Sample
    mask: np.ndarray
    """[H, W] uint8: ground truth"""
    segments: np.ndarray
    """[H, W] int64"""
    predictions: dict[str, np.ndarray]
    """read-out → [H, W] integers, 0..K-1"""


def evaluate_model(
    model: Segmenter,
    info: dict[str, Any],
    split_folder,
    train_folder,
    settings: Settings,
    *,
    split: str = "val",
    seed: int | None = None,
    oracle: bool = False,
    progress: bool = True,
    cache: ShardCache | None = None,
    each: Callable[[EvaluatedImage], None] | None = None,
) -> dict:
    """mIoU of a split by both read-outs, as plain data for JSON.

    model, info: as `model.export.load` gives them; split_folder, train_folder: packed shards; split, seed:
    what the result says of itself; cache: of shards from addresses. `each` is shown every image.

    The classifier labels pixels directly. For the nearest neighbours every image of the training split is
    cut into segments, whose prototypes carry the majority of their weakly labelled pixels; a segment of the
    split takes the majority label of its nearest prototypes (SPML paper, section 3.5). With `oracle` the
    prototypes carry ground truth, and the read-out is called `neighbours_oracle`.

    Raises DataError for images without ground truth, for one that is ignored everywhere, for classes other
    than the model's, and for a training split without any label.
    """
    classes = list(info["classes"])
    for folder in (split_folder, train_folder):
        _require_classes(folder, classes)
    _require_masks(split_folder, cache)  # before the training split, which takes long
    labelled = collect(
        model, len(classes), train_folder, settings, oracle=oracle, progress=progress, cache=cache
    )
    readouts = _ReadOuts(model, labelled, settings, oracle, len(classes))
    for number, sample in enumerate(_images(split_folder, f"evaluating {split}", progress, cache)):
        if sample.mask is None:
            raise _maskless(split_folder, cache)
        image = readouts.add(number, sample, sample.mask)
        if each is not None:
            each(image)
    confusion = readouts.confusion
    if not confusion["classifier"].any():
        remedy = "give whole masks: a pixel of value 255 is ignored"
        raise DataError(
            f"{split_folder}: no pixel of its masks has a class", f"{readouts.images} images", remedy
        )
    summaries = readouts.summaries(classes)
    present = metrics.present(confusion["classifier"])
    return {
        "split": split,
        "images": readouts.images,
        "seed": seed,
        "oracle": oracle,
        "miou": summaries["classifier"]["miou"],
        "readouts": summaries,
        "classes": classes,
        "background": info.get("background"),
        "classes_present": [label for label, there in zip(classes, present, strict=True) if there],
        "confusion": {key: matrix[:, : len(classes)].tolist() for key, matrix in confusion.items()},
    }


class _ReadOuts:
    """Both read-outs of a model, and what they add up to over the images of a split."""

    def __init__(
        self,
        model: Segmenter,
        labelled: LabelledPrototypes,
        settings: Settings,
        oracle: bool,
        num_classes: int,
    ):
        self._model, self._settings, self._classes = model, settings, num_classes
        # Exact search: an evaluation does not depend on an index's recall.
        self._labelled, self._index = labelled, build(labelled.prototype)
        self._name = "neighbours_oracle" if oracle else "neighbours"
        self._precision = _NeighbourPrecision()
        self.images = 0
        self.confusion = {
            name: np.zeros((num_classes, num_classes + 1), np.int64) for name in ("classifier", self._name)
        }

    def add(self, number: int, sample: Sample, mask: np.ndarray) -> EvaluatedImage:
        """Predict one image and count it."""
        embedded = whole_image.embed(self._model, sample.image, self._settings.longer_side)
        segments = whole_image.segments(embedded, self._settings.grid, self._settings.iterations)
        painted = self._by_neighbours(embedded, segments, mask)[segments]
        predictions = {
            "classifier": whole_image.classify(self._model, embedded).argmax(axis=0),
            self._name: embedded.geometry.to_image(painted),
        }
        for name, prediction in predictions.items():
            self.confusion[name] += metrics.confusion(mask, prediction, self._classes)
        self.images += 1
        return EvaluatedImage(number, sample, mask, embedded.geometry.to_image(segments), predictions)

    def _by_neighbours(self, embedded: EmbeddedImage, segments: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Class of each segment by its nearest labelled prototypes, [segments] int64."""
        labels = self._labelled.label
        queries, owner = segment_prototypes(embedded, segments)
        _, near = search(self._index, queries, self._settings.neighbours)
        self._precision.add(near, labels, segment_labels(embedded, segments, mask, self._classes)[owner])
        # Numbers of clusters that ended empty stay 0: no cell asks for them.
        votes = np.zeros(segments.max() + 1, np.int64)
        votes[owner] = neighbours.vote(near, labels, self._classes)
        return votes

    def summaries(self, classes: list[str]) -> dict[str, dict]:
        """Numbers of each read-out."""
        readouts = {name: _summary(counts, classes) for name, counts in self.confusion.items()}
        extra = {"prototypes": len(self._labelled.label), "precision": self._precision.mean()}
        readouts[self._name] |= extra
        return readouts


def collect(
    model: Segmenter,
    num_classes: int,
    folder,
    settings: Settings,
    *,
    oracle: bool = False,
    progress: bool = True,
    cache: ShardCache | None = None,
) -> LabelledPrototypes:
    """Labelled prototypes of all images of a split, in the order of its shards.

    Segments are cut without looking at labels; one without any labelled pixel is left out.
    """
    vectors: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for sample in _images(folder, "prototypes of train", progress, cache):
        annotation = sample.mask if oracle else sample.semantic
        if annotation is None:
            raise _maskless(folder, cache)
        embedded = whole_image.embed(model, sample.image, settings.longer_side)
        segments = whole_image.segments(embedded, settings.grid, settings.iterations)
        rows, owner = segment_prototypes(embedded, segments)
        label = segment_labels(embedded, segments, annotation, num_classes)[owner]
        # Only what is labelled is kept, and only that is searched.
        vectors.append(rows[label >= 0])
        labels.append(label[label >= 0])
    if not any(map(len, labels)):
        raise DataError(
            f"{folder}: no segment holds a labelled pixel",
            None,
            "nearest neighbours need a training split with labels",
        )
    return LabelledPrototypes(np.concatenate(vectors), np.concatenate(labels))


def segment_prototypes(embedded: EmbeddedImage, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def segment_labels(
    embedded: EmbeddedImage, segments: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Majority label of each segment over its labelled cells, -1 where it has none."""
    # Labels come to the grid rather than segments to the image: a cell votes once, as in training.
    cells = embedded.geometry.to_grid(labels)
    voting = (segments >= 0) & (cells < num_classes)
    return neighbours.majority(cells[voting], segments[voting], segments.max() + 1, num_classes)


class _NeighbourPrecision:
    """Mean precision of the neighbours over all queries whose true label is known."""

    def __init__(self):
        self.hits, self.queries = 0.0, 0

    def add(self, index: np.ndarray, labels: np.ndarray, truth: np.ndarray) -> None:
        known = truth >= 0
        self.hits += neighbours.precision(index[known], labels, truth[known]) * known.sum()
        self.queries += int(known.sum())

    def mean(self) -> float:
        return float(self.hits / max(self.queries, 1))


def _summary(counts: np.ndarray, classes: list[str]) -> dict:
    return {
        "miou": metrics.miou(counts),
        "pixel_accuracy": metrics.pixel_accuracy(counts),
        "iou": dict(zip(classes, metrics.iou(counts).tolist(), strict=True)),
    }


def _images(folder, what: str, progress: bool, cache: ShardCache | None) -> Iterator[Sample]:
    total = read_manifest(folder).samples if progress else None
    return iter(progress_bar(samples(folder, cache=cache), what, total, shown=progress))


def _require_classes(folder, classes: list[str]) -> None:
    packed = list(read_manifest(folder).classes)
    if packed != classes:
        raise DataError(
            f"{folder}: classes differ from the model's",
            ", ".join(packed),
            f"the model was trained for {', '.join(classes)}",
        )


def _require_masks(folder, cache: ShardCache | None) -> None:
    first = next(iter(samples(folder, cache=cache)), None)
    if first is None or first.mask is None:
        raise _maskless(folder, cache)


def _maskless(folder, cache: ShardCache | None) -> DataError:
    missing = {sample.key: sample.mask is None for sample in samples(folder, cache=cache)}
    keys = [key for key, lacks in missing.items() if lacks]
    more = ", …" if len(keys) > NAMED else ""
    return DataError(
        f"{folder}: images without ground truth",
        f"{len(keys)} of {len(missing)}: {', '.join(keys[:NAMED])}{more}",
        "choose a split whose images all have masks: a folder has them in masks/",
    )
