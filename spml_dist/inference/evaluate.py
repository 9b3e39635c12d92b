"""How good is a model? Both read-outs over a whole split: the classifier and the nearest neighbours."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm

from spml_dist.bank.search.faiss_index import build, search
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.stream.reader import samples
from spml_dist.data.stream.shard_cache import Cache
from spml_dist.errors import DataError
from spml_dist.inference import metrics, neighbours, whole_image
from spml_dist.method.prototypes import prototypes
from spml_dist.records import Sample

NAMED = 3
"""images that an error names"""


class Settings(Protocol):
    """The section `evaluation` of a configuration."""

    grid: tuple[int, int]
    iterations: int
    neighbours: int
    longer_side: int | None


@dataclass(frozen=True)
class Gallery:
    """Labelled prototypes of many images, to search in."""

    prototype: np.ndarray
    """[r, C] float32 unit vectors"""
    label: np.ndarray
    """[r] int64 in 0..K-1"""


@dataclass(frozen=True)
class Image:
    """One evaluated image and what the model says of it."""

    number: int
    """place in the split, from 0"""
    sample: Sample
    segments: np.ndarray
    """[H, W] int64"""
    predictions: dict[str, np.ndarray]
    """read-out → [H, W] integers, 0..K-1"""


def evaluate(
    model,
    info: dict,
    split_folder,
    train_folder,
    settings: Settings,
    *,
    split: str = "val",
    seed: int | None = None,
    oracle: bool = False,
    progress: bool = True,
    cache: Cache | None = None,
    each: Callable[[Image], None] | None = None,
) -> dict:
    """mIoU of a split by both read-outs, as plain data for JSON.

    model, info: as `model.export.load` gives them; split_folder, train_folder: packed shards; split, seed:
    what the result says of itself; cache: of shards from addresses. `each` is shown every image.

    The classifier labels pixels directly. For the nearest neighbours every image of the training split is
    cut into segments, whose prototypes carry the majority of their weakly labelled pixels; a segment of the
    split takes the majority label of its nearest prototypes (SPML paper, section 3.5). With `oracle` the
    prototypes carry ground truth, and the read-out is called `neighbours_oracle`.

    Raises DataError for images without ground truth, for classes other than the model's, and for a
    training split without any label.
    """
    classes = list(info["classes"])
    for folder in (split_folder, train_folder):
        _require_classes(folder, classes)
    _require_masks(split_folder, cache)
    shown = {"progress": progress, "cache": cache}
    gallery = collect(model, len(classes), train_folder, settings, oracle=oracle, **shown)
    name = "neighbours_oracle" if oracle else "neighbours"
    counts = {key: np.zeros((len(classes), len(classes) + 1), np.int64) for key in ("classifier", name)}
    index, found, images = build(gallery.prototype), _Precision(), 0

    for sample in _images(split_folder, f"evaluating {split}", **shown):
        if sample.mask is None:
            raise _maskless(split_folder, cache)
        seen = whole_image.view(model, sample.image, settings.longer_side)
        segments = whole_image.segments(seen, settings.grid, settings.iterations)
        queries, owner = _prototypes(seen, segments)
        _, near = search(index, queries, settings.neighbours)
        votes = np.zeros(segments.max() + 1, np.int64)
        votes[owner] = neighbours.vote(near, gallery.label, len(classes))
        found.add(near, gallery.label, _labels(seen, segments, sample.mask, len(classes))[owner])
        predictions = {
            "classifier": whole_image.classify(model, seen).argmax(axis=0),
            name: seen.geometry.to_image(votes[segments]),
        }
        for key, prediction in predictions.items():
            counts[key] += metrics.confusion(sample.mask, prediction, len(classes))
        if each is not None:
            each(Image(images, sample, seen.geometry.to_image(segments), predictions))
        images += 1

    readouts = {key: _summary(matrix, classes) for key, matrix in counts.items()}
    readouts[name] |= {"prototypes": len(gallery.label), "precision": found.mean()}
    truth = metrics.present(counts["classifier"])
    return {
        "split": split,
        "images": images,
        "seed": seed,
        "oracle": oracle,
        "miou": readouts["classifier"]["miou"],
        "readouts": readouts,
        "classes": classes,
        "background": info.get("background"),
        "classes_present": [label for label, there in zip(classes, truth, strict=True) if there],
        "confusion": {key: matrix[:, : len(classes)].tolist() for key, matrix in counts.items()},
    }


def collect(
    model,
    num_classes: int,
    folder,
    settings: Settings,
    *,
    oracle: bool = False,
    progress: bool = True,
    cache: Cache | None = None,
) -> Gallery:
    """Labelled prototypes of all images of a split, in the order of its shards.

    Segments are made without looking at labels; one without any labelled pixel is left out.
    """
    vectors, labels = [], []
    for sample in _images(folder, "prototypes of train", progress, cache):
        if oracle and sample.mask is None:
            raise _maskless(folder, cache)
        seen = whole_image.view(model, sample.image, settings.longer_side)
        segments = whole_image.segments(seen, settings.grid, settings.iterations)
        rows, owner = _prototypes(seen, segments)
        label = _labels(seen, segments, sample.mask if oracle else sample.semantic, num_classes)[owner]
        vectors.append(rows[label >= 0])
        labels.append(label[label >= 0])
    if not any(map(len, labels)):
        raise DataError(
            f"{folder}: no segment holds a labelled pixel",
            None,
            "nearest neighbours need a training split with labels",
        )
    return Gallery(np.concatenate(vectors), np.concatenate(labels))


def _prototypes(seen: whole_image.View, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit prototype of each segment that has a cell: ([s, C] float32, [s] number of the segment)."""
    inside = torch.from_numpy(segments >= 0)
    numbers = torch.from_numpy(segments)[inside]
    vectors = prototypes(
        seen.unit[inside.to(seen.unit.device)], numbers.to(seen.unit.device), int(numbers.max()) + 1
    )
    owner = np.unique(numbers.numpy())
    return vectors.cpu().numpy()[owner], owner


def _labels(seen: whole_image.View, segments: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Majority label of each segment over its labelled cells, -1 where it has none."""
    cells = seen.geometry.to_grid(labels)
    voting = (segments >= 0) & (cells < num_classes)
    return neighbours.majority(cells[voting], segments[voting], segments.max() + 1, num_classes)


class _Precision:
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


def _images(folder, what: str, progress: bool, cache: Cache | None) -> Iterator[Sample]:
    total = read_manifest(folder).samples if progress else None
    interval = 0.2 if sys.stderr.isatty() else 10
    options = {"desc": what, "total": total, "unit": "image", "mininterval": interval}
    return iter(tqdm(samples(folder, cache=cache), disable=not progress, **options))


def _require_classes(folder, classes: list[str]) -> None:
    packed = list(read_manifest(folder).classes)
    if packed != classes:
        raise DataError(
            f"{folder}: classes differ from the model's",
            ", ".join(packed),
            f"the model was trained for {', '.join(classes)}",
        )


def _require_masks(folder, cache: Cache | None) -> None:
    first = next(iter(samples(folder, cache=cache)), None)
    if first is None or first.mask is None:
        raise _maskless(folder, cache)


def _maskless(folder, cache: Cache | None) -> DataError:
    missing = {sample.key: sample.mask is None for sample in samples(folder, cache=cache)}
    named = [key for key, lacks in missing.items() if lacks]
    more = ", …" if len(named) > NAMED else ""
    return DataError(
        f"{folder}: images without ground truth",
        f"{len(named)} of {len(missing)}: {', '.join(named[:NAMED])}{more}",
        "choose a split whose images all have masks: a folder has them in masks/",
    )
