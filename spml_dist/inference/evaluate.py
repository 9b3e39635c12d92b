"""How good is a model? Both read-outs over a whole split: the classifier and the nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from spml_dist import cluster
from spml_dist.data.format.keys import image_id_of
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.stream.reader import Reader, samples
from spml_dist.data.stream.shard_cache import ShardCache
from spml_dist.errors import ConfigError, DataError
from spml_dist.inference import crf, metrics, whole_image
from spml_dist.inference.boundary import boundary_counts
from spml_dist.inference.device import threads
from spml_dist.inference.read_outs import (
    LabelledPrototypes,
    ReadOuts,
    Settings,
    labels_of,
    prototypes_of,
)
from spml_dist.inference.split_counts import EvaluatedImage, ImageCounts, SplitCounts, miou_of_shown
from spml_dist.inference.views import Views
from spml_dist.model.segmenter import Segmenter
from spml_dist.progress import progress_bar
from spml_dist.records import Sample

NAMED = 3
"""images that an error lists by their keys"""
READ_OUTS = ("classifier", "neighbours")
_TOGETHER = 4
"""images that a worker takes at a time"""

Part = TypeVar("Part")


@dataclass(frozen=True)
class EvaluateHow:
    """How a model is measured."""

    readouts: tuple[str, ...] = READ_OUTS
    """some of READ_OUTS"""
    oracle: bool = False
    """label the neighbours' prototypes with ground truth"""
    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False
    window: int | None = None
    crf: bool = False
    workers: int | None = None
    """processes of one thread each, on the Ray cluster of RAY_ADDRESS if it is set; None = this one, with all
    its threads"""

    @property
    def ways(self) -> tuple[str, ...]:
        """Names of what differs from both read-outs of one look at whole images."""
        one = self.readouts if len(self.readouts) == 1 else ()
        views = Views(self.scales, self.mirror, self.window)
        return (*one, *views.ways, *(("crf",) if self.crf else ()))


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
    how: EvaluateHow | None = None,
    swaps: Sequence[tuple[int, int]] = (),
    crop: int = Views.crop,
    progress: bool = True,
    cache: ShardCache | None = None,
    each: Callable[[EvaluatedImage], None] | None = None,
) -> dict:
    """mIoU of a split by both read-outs, as plain data for JSON.

    model, info: as `model.export.load` gives them; split_folder, train_folder: packed shards; split, seed:
    what the result says of itself; how: None = both read-outs of one look, with `oracle`; swaps: classes that
    change places in a mirror; crop: windows of images too large to be seen whole; cache: of shards from
    addresses. `each` is shown every image, in order.

    The classifier labels pixels directly. For the nearest neighbours every image of the training split is
    cut into segments, whose prototypes carry the majority of their weakly labelled pixels; a segment of the
    split takes the majority label of its nearest prototypes (SPML paper, section 3.5). With `oracle` the
    prototypes carry ground truth, and the read-out is called `neighbours_oracle`.

    Raises DataError for images without ground truth, for one that is ignored everywhere, for classes other
    than the model's, and for a training split without any label; ConfigError for views or read-outs that
    cannot be.
    """
    how = how or EvaluateHow(oracle=oracle)
    _require_readouts(how)
    if how.crf:
        crf.require()
    views = Views(
        how.scales,
        how.mirror,
        how.window,
        longer_side=settings.longer_side,
        crop=crop,
        swaps=tuple(swaps),
    )
    classes, with_neighbours = list(info["classes"]), "neighbours" in how.readouts
    for folder in (split_folder, *((train_folder,) if with_neighbours else ())):
        _require_classes(folder, classes)
    _require_masks(split_folder, cache)  # before the training split, which takes long
    labelled = None
    if with_neighbours:
        labelled = collect(
            model,
            len(classes),
            train_folder,
            settings,
            oracle=how.oracle,
            progress=progress,
            cache=cache,
            workers=how.workers,
        )
    names = tuple(f"{name}_oracle" if name != "classifier" and how.oracle else name for name in how.readouts)
    read = ReadOuts(model, len(classes), settings, views, how.crf, names, labelled)
    reader = Reader(split_folder, read_manifest(split_folder), cache=cache)
    part = _EvaluatePart(read, reader, how.workers and 1, each is not None)
    counts = SplitCounts(names, len(classes))
    for image in _in_order(part, reader.manifest.samples, f"evaluating {split}", progress, how.workers):
        counts.add(image)
        if each is not None and image.evaluated is not None:
            each(image.evaluated)
    if not counts.confusion[names[0]].any():
        remedy = "give whole masks: a pixel of value 255 is ignored"
        raise DataError(
            f"{split_folder}: no pixel of its masks has a class", f"{counts.images} images", remedy
        )
    summaries = counts.summaries(classes)
    if labelled is not None:
        summaries[names[-1]] |= {"prototypes": len(labelled.label), "precision": counts.precision()}
    present = metrics.present(counts.confusion[names[0]])
    return {
        "split": split,
        "images": counts.images,
        "seed": seed,
        "oracle": how.oracle,
        "ways": list(how.ways),
        "scales": list(how.scales),
        "mirror": how.mirror,
        "window": how.window,
        "crf": how.crf,
        "miou": summaries[names[0]]["miou"],
        "readouts": summaries,
        "classes": classes,
        "background": info.get("background"),
        "classes_present": [label for label, there in zip(classes, present, strict=True) if there],
        "confusion": {key: matrix[:, : len(classes)].tolist() for key, matrix in counts.confusion.items()},
        **counts.extremes(),
    }


def collect(
    model: Segmenter,
    num_classes: int,
    folder,
    settings: Settings,
    *,
    oracle: bool = False,
    progress: bool = True,
    cache: ShardCache | None = None,
    workers: int | None = None,
) -> LabelledPrototypes:
    """Labelled prototypes of all images of a split, in the order of its shards.

    Segments are cut without looking at labels; one without any labelled pixel is left out.
    """
    reader = Reader(folder, read_manifest(folder), cache=cache)
    part = _CollectPart(model, num_classes, reader, settings, oracle, workers and 1)
    found = list(_in_order(part, reader.manifest.samples, "prototypes of train", progress, workers))
    if not any(len(labels) for _, labels in found):
        raise DataError(
            f"{folder}: no segment holds a labelled pixel",
            None,
            "nearest neighbours need a training split with labels",
        )
    vectors, labels = zip(*found, strict=True)
    return LabelledPrototypes(np.concatenate(vectors), np.concatenate(labels))


@dataclass(frozen=True)
class _CollectPart:
    """Labelled prototypes of each image of a range. Pickles."""

    model: Segmenter
    num_classes: int
    reader: Reader
    settings: Settings
    oracle: bool
    threads: int | None

    def __call__(self, span: tuple[int, int]) -> tuple[int, list[tuple[np.ndarray, np.ndarray]]]:
        with threads(self.threads):
            return span[0], [self._image(each) for each in self.reader.samples(*span)]

    def _image(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        annotation = sample.mask if self.oracle else sample.semantic
        if annotation is None:
            raise _maskless(self.reader.folder, self.reader.cache)
        embedded = whole_image.embed(self.model, sample.image, self.settings.longer_side)
        segments = whole_image.segments(embedded, self.settings.grid, self.settings.iterations)
        rows, owner = prototypes_of(embedded, segments)
        label = labels_of(embedded, segments, annotation, self.num_classes)[owner]
        # Only what is labelled is kept, and only that is searched.
        return rows[label >= 0], label[label >= 0]


@dataclass(frozen=True)
class _EvaluatePart:
    """Counts of each image of a range. Pickles."""

    read: ReadOuts
    reader: Reader
    threads: int | None
    shown: bool

    def __call__(self, span: tuple[int, int]) -> tuple[int, list[ImageCounts]]:
        with threads(self.threads):
            images = enumerate(self.reader.samples(*span), span[0])
            return span[0], [self._image(number, sample) for number, sample in images]

    def _image(self, number: int, sample: Sample) -> ImageCounts:
        mask, classes = sample.mask, self.read.num_classes
        if mask is None:
            raise _maskless(self.reader.folder, self.reader.cache)
        found = self.read(sample.image, mask)
        confusion = {n: metrics.confusion(mask, p, classes) for n, p in found.predictions.items()}
        miou = miou_of_shown(confusion[self.read.names[0]])
        name = image_id_of(sample.key)
        shown = EvaluatedImage(number, sample, mask, found.segments, found.predictions, name, miou)
        return ImageCounts(
            name,
            confusion,
            {n: boundary_counts(mask, p, classes) for n, p in found.predictions.items()},
            miou,
            found.hits,
            found.queries,
            shown if self.shown else None,
        )


def _in_order(
    part: Callable[[tuple[int, int]], tuple[int, list[Part]]],
    total: int,
    what: str,
    progress: bool,
    workers: int | None,
) -> Iterator[Part]:
    """What `part` gives for so many images of a split, in their order whoever finishes first."""

    def finished() -> Iterator[Part]:
        spans = ((start, min(start + _TOGETHER, total)) for start in range(0, total, _TOGETHER))
        waiting: dict[int, list[Part]] = {}
        following = 0
        with closing(cluster.spread(part, spans, workers or 1)) as parts:
            for start, found in parts:
                waiting[start] = found
                while following in waiting:
                    yield from waiting.pop(following)
                    following += _TOGETHER

    return iter(progress_bar(finished(), what, total, shown=progress))


def _require_readouts(how: EvaluateHow) -> None:
    if not how.readouts or not set(how.readouts) <= set(READ_OUTS):
        raise ConfigError("readouts", ", ".join(how.readouts), f"give some of {', '.join(READ_OUTS)}")
    if how.oracle and "neighbours" not in how.readouts:
        raise ConfigError("readouts", ", ".join(how.readouts), "the oracle labels neighbours: add them")
    if how.window is not None and "classifier" not in how.readouts:
        remedy = "neighbours see the image whole: leave the windows out, or add the classifier"
        raise ConfigError("window", how.window, remedy)


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
