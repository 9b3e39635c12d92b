"""A collection of images labelled by a trained model, into a folder, by any number of processes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from spml_dist import __version__, cluster
from spml_dist.drawing.overlay import palette
from spml_dist.errors import DataError
from spml_dist.inference import crf
from spml_dist.inference.device import threads
from spml_dist.inference.image_sources import ImageSource
from spml_dist.inference.label_pictures import LabelPictures
from spml_dist.inference.pixel_labels import PixelLabels, label
from spml_dist.inference.prediction_folder import Entry, PredictionFolder
from spml_dist.inference.prediction_formats import require_format, write_format
from spml_dist.inference.trained_model import TrainedModel, export_folder, load_model
from spml_dist.progress import progress_bar
from spml_dist.run_folder import MODEL_WEIGHTS


@dataclass(frozen=True)
class PredictSettings:
    """How images are labelled, and what is written of them."""

    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False
    window: int | None = None
    crf: bool = False
    overlays: bool = True
    confidence: bool = True


@dataclass(frozen=True)
class Predictions:
    """What came of it."""

    images: list[Entry]
    """labelled, in the order in which they were given"""
    rejected: list[Entry]
    """`image`, `source` and `reason` of those that could not be"""
    classes: tuple[str, ...]
    background: int | None
    done_before: int
    """of the labelled ones, those that an earlier call had left"""
    images_per_s: float
    """of this call, from the first result on: without the start of processes; 0 for fewer than two results"""


def predict_images(
    model: str | Path,
    sources: Sequence[ImageSource],
    out: Path,
    settings: PredictSettings,
    *,
    device: str = "auto",
    batch: int = 1,
    workers: int | None = None,
    formats: Sequence[str] = (),
    progress: bool = True,
) -> Predictions:
    """Label images and write the folder `out`; the same call goes on where it was interrupted.

    model: as `load_model`; batch: images, or windows of one, that the network is given at a time; workers:
    processes of one thread each, on the Ray cluster of RAY_ADDRESS if it is set; what is written does not
    depend on their number. None = this process with all its threads; formats: of label tools, as
    `write_format` names them. An image that cannot be read is listed in rejected.jsonl, the others go on.
    Raises as `load_model` and `write_format`; RunError for a folder with anything but predictions of these
    settings, and for a dense CRF that is not installed; ConfigError for bad views.
    """
    if settings.crf:
        crf.require()
    place = Path(model).absolute()
    _loaded.cache_clear()  # another call may have had other weights there
    trained = _loaded(place, device)  # whatever is wrong with it is told before anything is written
    trained.views(settings.scales, settings.mirror, settings.window)
    for name in formats:
        require_format(name, trained.classes)
    pictures = LabelPictures(out, trained.classes, trained.background, settings.overlays, settings.confidence)
    folder = PredictionFolder(out, _made_by(trained, place, settings))
    predictor = _Predictor(place, device, settings, pictures, batch, threads=workers and 1)
    clock = _Clock()
    with closing(folder):
        done = _still_valid(folder.begin(), sources, pictures)
        found = done | _label_missing(predictor, sources, done, folder, clock, workers or 1, progress)
        ordered = [found[source.name] for source in sources]
        labelled = [entry for entry in ordered if "reason" not in entry]
        rejected = [entry for entry in ordered if "reason" in entry]
        folder.complete(labelled, rejected)
    for name in formats:
        write_format(name, out, labelled, trained.classes, trained.background)
    return Predictions(labelled, rejected, trained.classes, trained.background, len(done), clock.rate())


def _label_missing(
    predictor: _Predictor,
    sources: Sequence[ImageSource],
    done: dict[str, Entry],
    folder: PredictionFolder,
    clock: _Clock,
    workers: int,
    progress: bool,
) -> dict[str, Entry]:
    """Label what is not done yet; entries by image."""
    # Of a batch all images are labelled or none: what the network is given together is always the same.
    size = predictor.batch
    batches = [tuple(sources[start : start + size]) for start in range(0, len(sources), size)]
    missing = [part for part in batches if not all(source.name in done for source in part)]
    found: dict[str, Entry] = {}
    bar: tqdm[Entry] = progress_bar((), "labelling", len(sources), initial=len(done), shown=progress)
    with bar, closing(cluster.spread(predictor, missing, workers)) as finished:
        for entries in finished:
            found |= {entry["image"]: entry for entry in entries}
            folder.add(entry for entry in entries if "reason" not in entry)
            clock.count(len(entries))
            bar.update(sum(entry["image"] not in done for entry in entries))
    return found


@dataclass(frozen=True)
class _Predictor:
    """Labels one batch after the other, in whatever process."""

    model: Path
    device: str
    settings: PredictSettings
    pictures: LabelPictures
    batch: int
    threads: int | None
    """None = as many as the process has"""

    def __call__(self, sources: tuple[ImageSource, ...]) -> list[Entry]:
        trained = _loaded(self.model, self.device)
        entries: dict[str, Entry] = {}
        read: list[tuple[ImageSource, np.ndarray, str]] = []
        for source in sources:
            try:
                read.append((source, *self._image(source)))
            except DataError as error:
                entries[source.name] = {"image": source.name, "source": str(source), "reason": _reason(error)}
        with threads(self.threads):
            for (source, image, digest), labels in zip(read, self._labels(trained, read), strict=True):
                self.pictures.write(source.name, image, labels)
                entries[source.name] = self._entry(source, labels, digest)
        return [entries[source.name] for source in sources]

    def _image(self, source: ImageSource) -> tuple[np.ndarray, str]:
        image, digest = source.read()
        if self.settings.crf:
            crf.require_size(image, str(source))
        return image, digest

    def _labels(
        self, trained: TrainedModel, read: Sequence[tuple[ImageSource, np.ndarray, str]]
    ) -> Iterator[PixelLabels]:
        views = trained.views(self.settings.scales, self.settings.mirror, self.settings.window)
        images = [image for _, image, _ in read]
        return label(trained.network, images, views, refine=self.settings.crf, batch=self.batch)

    def _entry(self, source: ImageSource, labels: PixelLabels, digest: str) -> Entry:
        names = self.pictures.classes
        counts = np.bincount(labels.classes.ravel(), minlength=len(names))
        height, width = labels.classes.shape
        shares = {
            name: round(int(count) / labels.classes.size, 6)
            for name, count in zip(names, counts, strict=True)
            if count
        }
        return {
            "image": source.name,
            "source": str(source),
            "sha256": digest,
            "height": height,
            "width": width,
            **self.pictures.files(source.name),
            "mean_confidence": round(float(labels.confidence.mean()) / 255, 4),
            "classes": shares,
        }


class _Clock:
    """Images a second from the first result on."""

    def __init__(self) -> None:
        self._first, self._last, self._images = 0.0, 0.0, 0

    def count(self, images: int) -> None:
        self._last = time.perf_counter()
        if self._first:
            self._images += images
        else:
            self._first = self._last

    def rate(self) -> float:
        return self._images / (self._last - self._first) if self._images else 0.0


def _reason(error: DataError) -> str:
    """Without the remedy, which is for somebody who packs."""
    return str(DataError(error.what, error.value))


@lru_cache(maxsize=1)
def _loaded(model: Path, device: str) -> TrainedModel:
    return load_model(model, device)


def _made_by(trained: TrainedModel, model: Path, settings: PredictSettings) -> dict[str, Any]:
    colours = palette(len(trained.classes), trained.background)[: len(trained.classes)]
    weights = (export_folder(model) / MODEL_WEIGHTS).read_bytes()
    return {
        "version": __version__,
        "model": {"sha256": hashlib.sha256(weights).hexdigest(), "step": trained.step},
        "settings": {**vars(settings), "longer_side": trained.longer_side},
        "classes": list(trained.classes),
        "background": trained.background,
        "colours": [bytes(colour).hex() for colour in colours],
    }


def _still_valid(
    entries: dict[str, Entry], sources: Iterable[ImageSource], pictures: LabelPictures
) -> dict[str, Entry]:
    """Those of an earlier call's entries whose image is the same and whose files are there."""
    valid = {}
    for source in sources:
        entry = entries.get(source.name)
        if entry is None or not all(
            (pictures.out / file).is_file() for file in pictures.files(source.name).values()
        ):
            continue
        try:
            digest = hashlib.sha256(source.content()).hexdigest()
        except DataError:
            continue
        if digest == entry["sha256"] and str(source) == entry["source"]:
            valid[source.name] = entry
    return valid
