"""Which numbers of the training log belong into one chart. Plain data: drawing is the charts' matter."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PHASES = ("data", "forward", "loss", "backward", "optimizer", "encoder", "bank")
"""in the order of a step; what takes less than a hundredth of the time, or is not listed, is `other`"""
SILENT = {"step", "timestamp", "eta_s", "pixels"}
"""keys that a chart of their own would tell nothing about"""

BANK = {
    "bank/age_share/": "Rows of the bank by age in steps, %",
    "bank/recall/": "Recall of the inverted file, %",
    "bank/coverage_annotation/": "Segments with a positive and a negative by annotation, %",
    "bank/coverage_cooccurrence/": "Segments with a positive and a negative by co-occurrence, %",
}
"""beginnings of keys, and the title of the chart that they share"""

MACHINES = {
    "CPU, %": "cpu_utilization_percentage",
    "Memory of the machine, %": "system_memory_usage_percentage",
    "GPUs, mean %": r"gpu_\d+_utilization_percentage",
    "GPU memory, mean MB": r"gpu_\d+_memory_usage_megabytes",
}
"""title, and the readings of which the mean is drawn"""


@dataclass(frozen=True)
class Curves:
    """One chart: named series of (x, y), [n, 2] float64 each, x ascending."""

    title: str
    series: dict[str, np.ndarray]
    stacked: bool = False
    across: str = "step"
    """what x is"""


def of_training(steps: Sequence[Mapping]) -> list[Curves]:
    """Everything that the log holds, known numbers first; charts without a finite number are left out.

    steps: objects of metrics.jsonl in order; keys may be missing, and keys that nobody has heard of get
    a chart of their own.
    """
    keys = sorted({key for row in steps for key in row} - SILENT)
    terms = [key for key in keys if key.startswith("loss/")]
    charts = [
        Curves("Loss", {"total": _series(steps, "loss")}),
        *(Curves(f"Loss: {_name(key)}", {_name(key): _series(steps, key)}) for key in terms),
        Curves("Learning rate", {"lr": _series(steps, "lr")}),
        Curves("Pixels without a positive, %", _without_positive(steps, keys)),
        Curves("Seconds a step, by phase", _phases(steps, keys), stacked=True),
        Curves("Images a second", {"images": _series(steps, "images_per_s")}),
        Curves("Memory of rank 0, GB", {"memory": _series(steps, "memory_mb") / [1, 1024]}),
        Curves(
            "Candidates of a step, and rows of the bank",
            {"candidates": _series(steps, "candidates"), "rows of the bank": _series(steps, "bank/rows")},
        ),
        *_of_bank(steps, keys),
        *_others(steps, keys),
    ]
    kept = (_with_points(curves) for curves in charts)
    return [curves for curves in kept if curves.series]


def of_machines(nodes: Mapping[str, Sequence[Mapping]]) -> list[Curves]:
    """How busy every node was, over minutes since the first reading of all."""
    nodes = {node: [row for row in rows if "timestamp" in row] for node, rows in nodes.items()}
    first = min((row["timestamp"] for rows in nodes.values() for row in rows), default=0)
    charts = []
    for title, pattern in MACHINES.items():
        series = {}
        for node, rows in nodes.items():
            values = [[v for key, v in row.items() if re.fullmatch(pattern, key)] for row in rows]
            points = [
                ((row["timestamp"] - first) / 60e3, np.mean(readings))
                for row, readings in zip(rows, values, strict=True)
                if readings
            ]
            series[node.replace("_", " ")] = np.array(points, np.float64).reshape(-1, 2)
        charts.append(_with_points(Curves(title, series, across="minutes")))
    return [curves for curves in charts if curves.series]


def _without_positive(steps: Sequence[Mapping], keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Share of the valid pixels without a positive, by relation."""
    terms = [key for key in keys if key.startswith("without_positive/")]
    return {_name(key): _share(_series(steps, key), _series(steps, "pixels")) for key in terms}


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Per cent, where both are known and there is a whole."""
    whole = whole[whole[:, 1] > 0]
    at, ours, theirs = np.intersect1d(part[:, 0], whole[:, 0], return_indices=True)
    return np.column_stack([at, 100 * part[ours, 1] / whole[theirs, 1]])


def _phases(steps: Sequence[Mapping], keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Seconds of each phase at every logged step that has any; the first one pays for starting up."""
    timed = [row for row in steps if any(key.startswith("time/") for key in row)]
    timed = timed[1:] or timed
    seconds = {
        key.removeprefix("time/"): np.array([row.get(key) or 0.0 for row in timed])
        for key in keys
        if key.startswith("time/")
    }
    total = sum((each.sum() for each in seconds.values()), 0.0)
    shown = [phase for phase in PHASES if phase in seconds and seconds[phase].sum() >= 0.01 * total]
    rest = [each for phase, each in seconds.items() if phase not in shown]
    layers = {phase: seconds[phase] for phase in shown} | ({"other": sum(rest)} if rest else {})
    at = [row["step"] for row in timed]
    return {phase: np.column_stack([at, layer]) for phase, layer in layers.items()}


def _of_bank(steps: Sequence[Mapping], keys: Sequence[str]) -> Iterator[Curves]:
    """How the global bank does; the same number with other bounds or of other relations shares a chart."""
    yield Curves("Age of the bank's rows, mean in steps", {"age": _series(steps, "bank/age_mean")})
    yield Curves(
        "Cosine of replaced segments with the new ones", {"drift": _series(steps, "bank/drift_cosine")}
    )
    yield Curves("Annotated neighbours of the same class, %", {"purity": _percent(steps, "bank/purity")})
    for prefix, title in BANK.items():
        members = [key for key in keys if key.startswith(prefix)]
        yield Curves(title, {_name(key.removeprefix(prefix)): _percent(steps, key) for key in members})


def _percent(steps: Sequence[Mapping], key: str) -> np.ndarray:
    return _series(steps, key) * [1, 100]


def _others(steps: Sequence[Mapping], keys: Sequence[str]) -> Iterator[Curves]:
    known = {"loss", "lr", "images_per_s", "workers", "memory_mb", "candidates", "pixels_without_positive"}
    groups = ("loss", "time", "without_positive", "bank")
    new: dict[str, list[str]] = {}
    for key in keys:
        if key not in known and key.partition("/")[0] not in groups:
            new.setdefault(key.partition("/")[0], []).append(key)
    for group, members in new.items():
        title = group.replace("_", " ").capitalize()
        yield Curves(title, {_name(key): _series(steps, key) for key in members})


def _series(steps: Sequence[Mapping], key: str) -> np.ndarray:
    points = [(row["step"], row[key]) for row in steps if isinstance(row.get(key), int | float)]
    return np.array([point for point in points if math.isfinite(point[1])], np.float64).reshape(-1, 2)


def _with_points(curves: Curves) -> Curves:
    kept = {name: points for name, points in curves.series.items() if len(points)}
    return Curves(curves.title, kept, curves.stacked, curves.across)


def _name(key: str) -> str:
    return (key.partition("/")[2] or key).replace("_", " ")
