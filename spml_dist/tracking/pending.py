"""What of a run folder has not arrived at MLflow. Plain files and numbers: nothing here knows MLflow.

The run folder is the truth and is never copied into memory. Of every file a mark tells how much of it has
arrived: of a log its last step, of any other file its time of change in milliseconds.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from itertools import count as count_from
from pathlib import Path
from typing import Any, BinaryIO

from spml_dist.run_folder import RunFolder, evaluation

MetricPoint = tuple[str, float, int, int]
"""name, value, milliseconds since 1970, step"""

LABELS = ("images_labelled", "images_unlabelled", "images_tags_unknown", "pixels_contradicted")
"""of the counts in labels.json, those that are sent beside the images of each kind"""
LONGEST_NAME = 150
"""characters of a class's name: MLflow takes 250 with what stands before it"""
OWN = "bank/"
"""names that are a group of their own, without prefix"""
BLOCK = 1 << 16
"""bytes looked at first, from the end of a log"""


@dataclass(frozen=True)
class Artifact:
    """A file to send as it is."""

    name: str
    """its path in the run folder"""
    group: str | None
    """folder among the artifacts"""
    mark: int
    """time of change, milliseconds"""


def logs(folder: Path) -> dict[str, str]:
    """Path in the run folder → what goes before the names of its numbers.

    Of growing files of JSON lines, steps ascending: the training's, and those of all nodes.
    """
    run = RunFolder(folder)
    nodes = {str(path.relative_to(folder)): f"system/{path.stem}/" for path in run.systems()}
    return {run.metrics.name: "train/", **nodes}


def batches(path: Path, prefix: str, mark: int, most: int) -> Iterator[list[MetricPoint]]:
    """The points of a log's steps after a mark, in whole steps, about `most` at a time.

    A last line that is still being written, and one that a crash has torn, are passed over.
    """
    if not path.exists():
        return
    batch: list[MetricPoint] = []
    with path.open("rb") as file:
        _seek(file, mark)
        for line in file:
            entry = _entry(line)
            if entry and entry["step"] > mark:
                batch += _points(entry, prefix)
            if len(batch) >= most:
                yield batch
                batch = []
    if batch:
        yield batch


def artifacts(folder: Path, marks: Mapping[str, int]) -> list[Artifact]:
    """The files that have not arrived as they are now, in a fixed order."""
    run = RunFolder(folder)
    groups = {
        None: (run.config, run.labels),
        "previews": run.previews(),
        "evaluation": (*run.evaluations(), run.report),
    }
    files = [
        Artifact(str(path.relative_to(folder)), group, path.stat().st_mtime_ns // 1_000_000)
        for group, paths in groups.items()
        for path in paths
        if path.exists()
    ]
    return [artifact for artifact in files if marks.get(artifact.name) != artifact.mark]


def numbers(folder: Path, artifact: Artifact) -> list[MetricPoint]:
    """What a file holds that can be drawn: of a result `eval/SPLIT/miou`, `eval/SPLIT/READOUT/iou/CLASS` ...,
    of the counts of labels at step 0 `labels/images`, `labels/kind/points` ...; nothing of other files."""
    path, run = folder / artifact.name, RunFolder(folder)
    if path != run.labels and path not in run.results():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    flat = _labels(content) if path == run.labels else _result(content)
    step = content.get("step") or 0
    return [(name, value, artifact.mark, step) for name, value in flat]


def count(folder: Path, marks: Mapping[str, int]) -> tuple[int, int]:
    """How many numbers and how many files have not arrived."""
    left = artifacts(folder, marks)
    points = sum(len(numbers(folder, artifact)) for artifact in left)
    for name, prefix in logs(folder).items():
        points += sum(map(len, batches(folder / name, prefix, marks.get(name, -1), 1000)))
    return points, len(left)


def _seek(file: BinaryIO, mark: int) -> None:
    """Go to a place before which no step is beyond the mark, looked for from the end: to read all of a long
    log every few seconds would take time from the training."""
    place, block = file.seek(0, os.SEEK_END), BLOCK
    while place:
        place, block = max(0, place - block), 2 * block
        file.seek(place)
        file.readline()  # the rest of a line, or at the beginning a whole one
        entry = _entry(file.readline())
        if entry and entry["step"] <= mark:
            return
    file.seek(0)


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("step"), int) else None


def _points(entry: dict[str, Any], prefix: str) -> Iterator[MetricPoint]:
    step, when = entry["step"], entry.get("timestamp", 0)
    for name, value in entry.items():
        if name not in ("step", "timestamp") and isinstance(value, int | float):
            yield name if name.startswith(OWN) else f"{prefix}{name}", float(value), when, step


def _result(result: dict[str, Any]) -> Iterator[tuple[str, float]]:
    name = f"eval/{evaluation(result['split'], result['oracle'], result.get('ways', ()))}"
    return _flat(name, {"miou": result["miou"], **result["readouts"]})


def _labels(summary: dict[str, Any]) -> Iterator[tuple[str, float]]:
    counts = summary["counts"]
    own = {"images": summary["samples"], "pixels_labelled": sum(counts["pixels_labelled"])}
    return _flat("labels", own | {name: counts[name] for name in LABELS} | {"kind": counts["kinds"]})


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The numbers of nested objects, named after their keys."""
    if isinstance(value, dict):
        places = distinct(value)
        for key, inner in value.items():
            yield from _flat(f"{name}/{places[key]}", inner)
    elif isinstance(value, int | float):
        yield name, float(value)


def distinct(names: Iterable[str]) -> dict[str, str]:
    """name -> the same in characters that MLflow takes, no two alike, with capitals or without.

    Letters of every script are taken. Of names that would become one, all but the first get a number.
    """
    places: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^\w. -]", "_", name)[:LONGEST_NAME].strip()
        plain = plain if plain.strip(".") else f"_{plain}"  # a path of dots leads elsewhere
        ways = chain([plain], (f"{plain}_{number}" for number in count_from(2)))
        places[name] = next(way for way in ways if _alike(way) not in taken)
        taken.add(_alike(places[name]))
    return places


def _alike(name: str) -> str:
    """What databases that know no capitals make of a name."""
    return unicodedata.normalize("NFKC", name).casefold()
