"""What of a run folder has not arrived at MLflow. Plain files and numbers: nothing here knows MLflow.

The run folder is the truth and is never copied into memory. Of every file a mark says how much of it has
arrived: of a log its last step, of any other file its time of change in milliseconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from spml_dist.run_folder import RunFolder

Point = tuple[str, float, int, int]
"""name, value, milliseconds since 1970, step"""

FILES = (
    ("config.yaml", None),
    ("labels.json", None),
    ("previews/*.png", "previews"),
    ("result*.json", "evaluation"),
    ("result*.md", "evaluation"),
    ("pictures/*.png", "evaluation"),
    ("report.html", "evaluation"),
)
"""what is sent as it is, and the folder among the artifacts where it goes"""

LABELS = ("images_labelled", "images_unlabelled", "images_tags_unknown", "pixels_contradicted")
"""of the counts in labels.json, those that are sent beside the images of each kind"""

OWN = "bank/"
"""names that are a group of their own, without prefix"""


class Log:
    """A growing file of JSON lines with `step` and `timestamp`, read on from where it was left.

    name: its path in the run folder; prefix: what goes before the names of its numbers.
    """

    def __init__(self, folder: Path, name: str, prefix: str):
        self.name, self.prefix = name, prefix
        self._path = folder / name
        self._offset = 0

    def batches(self, mark: int, most: int) -> Iterator[list[Point]]:
        """The points of steps after a mark, whole steps, about `most` at a time.

        A batch counts as taken when the next one is asked for: one that could not be sent comes again.
        A last line that is still being written is left for later.
        """
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            offset, batch = self._offset, []
            for line in file:
                if not line.endswith(b"\n"):
                    break
                offset += len(line)
                batch += self._points(line, mark)
                if len(batch) >= most:
                    yield batch
                    self._offset, batch = offset, []
        if batch:
            yield batch
        self._offset = offset

    def _points(self, line: bytes, mark: int) -> list[Point]:
        try:
            entry = json.loads(line)
            step, when = entry.pop("step"), entry.pop("timestamp", 0)
        except (ValueError, AttributeError, KeyError):  # torn by a crash
            return []
        if step <= mark:
            return []
        return [
            (name if name.startswith(OWN) else f"{self.prefix}{name}", float(value), when, step)
            for name, value in entry.items()
            if isinstance(value, int | float)
        ]


@dataclass(frozen=True)
class File:
    """A file to send as it is."""

    name: str
    """its path in the run folder"""
    place: str | None
    """folder among the artifacts"""
    mark: int
    """time of change, milliseconds"""


def logs(folder: Path) -> list[Log]:
    """The training's numbers, and those of every node that has written some."""
    nodes = [path.stem for path in RunFolder(folder).systems()]
    return [
        Log(folder, "metrics.jsonl", "train/"),
        *(Log(folder, f"system/{node}.jsonl", f"system/{node}/") for node in nodes),
    ]


def files(folder: Path, marks: Mapping[str, int]) -> list[File]:
    """The files that have not arrived as they are now, in a fixed order."""
    found = []
    for pattern, place in FILES:
        for path in sorted(folder.glob(pattern)):
            name, mark = str(path.relative_to(folder)), path.stat().st_mtime_ns // 1_000_000
            if marks.get(name) != mark:
                found.append(File(name, place, mark))
    return found


def evaluation(folder: Path, file: File) -> list[Point]:
    """The numbers of a result: `eval/SPLIT/miou`, `eval/SPLIT/READOUT/iou/CLASS`... and so on."""
    if not file.name.startswith("result") or not file.name.endswith(".json"):
        return []
    result = json.loads((folder / file.name).read_text(encoding="utf-8"))
    name = f"eval/{result['split']}{'_oracle' if result['oracle'] else ''}"
    flat = {f"{name}/miou": result["miou"]}
    for readout, values in result["readouts"].items():
        flat |= {f"{name}/{readout}/{key}": value for key, value in values.items() if key != "iou"}
        for label, value in values["iou"].items():
            flat[f"{name}/{readout}/iou/{_plain(label)}"] = value
    return [(key, float(value), file.mark, result.get("step") or 0) for key, value in flat.items()]


def numbers(folder: Path, file: File) -> list[Point]:
    """The numbers of a file that is sent: of a result, or of the labels that were learned from."""
    return labels(folder, file) if file.name == "labels.json" else evaluation(folder, file)


def labels(folder: Path, file: File) -> list[Point]:
    """The counts of the training set at step 0: `labels/images`, `labels/kind/points`, ... ."""
    said = json.loads((folder / file.name).read_text(encoding="utf-8"))
    counts = said["counts"]
    flat = {"images": said["samples"], "pixels_labelled": sum(counts["pixels_labelled"])}
    flat |= {name: counts[name] for name in LABELS}
    flat |= {f"kind/{_plain(kind)}": images for kind, images in counts["kinds"].items()}
    return [(f"labels/{name}", float(value), file.mark, 0) for name, value in flat.items()]


def _plain(name: str) -> str:
    """A name of only those characters that MLflow takes."""
    return re.sub(r"[^A-Za-z0-9_. -]", "_", name)


def count(folder: Path, marks: Mapping[str, int]) -> tuple[int, int]:
    """How many numbers and how many files have not arrived."""
    left = files(folder, marks)
    points = sum(len(numbers(folder, file)) for file in left)
    for log in logs(folder):
        points += sum(map(len, log.batches(marks.get(log.name, -1), 1000)))
    return points, len(left)
