"""What the page shows, as plain data: for the tiles on top, and for programs as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from spml_dist.report import curves
from spml_dist.report.contents import Contents

SETTINGS = (
    ("backbone", "model.backbone"),
    ("workers", "engine.workers"),
    ("steps", "schedule.steps"),
    ("batch", "stream.batch"),
    ("crop", "stream.crop"),
    ("learning rate", "optimizer.lr"),
    ("ZeRO stage", "engine.zero_stage"),
    ("precision", "engine.precision"),
    ("seed", "seed"),
    ("trained on", "data.train"),
)


def summary(run: Contents) -> dict[str, Any]:
    """Everything that the page shows as numbers and text, ready for JSON.

    `charts` and `machines` are lists of {"title", "across", "series": {name: [[x, y], ...]}}.
    """
    return {
        "run": run.name,
        "folder": str(run.folder),
        "settings": settings(run),
        "headline": headline(run),
        "results": run.results,
        "labels": run.labels,
        "refinement": run.refinement,
        "charts": [_plain(each) for each in curves.of_training(run.steps)],
        "machines": [_plain(each) for each in curves.of_machines(run.nodes)],
        "previews": [str(path.relative_to(run.folder)) for path in run.previews],
        "config": run.config,
    }


def settings(run: Contents) -> dict[str, Any]:
    """The settings that tell runs apart, and when it was logged."""
    values = {name: _value(run.config, key) for name, key in SETTINGS}
    if worked := [row["workers"] for row in run.steps if "workers" in row]:
        values["workers"] = ", then ".join(str(number) for number, _ in groupby(worked))
    times = [row["timestamp"] for row in run.steps if "timestamp" in row]
    if times:
        first, last = (datetime.fromtimestamp(when / 1000, UTC) for when in (times[0], times[-1]))
        end = f"{last:%H:%M}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M}"
        values["logged"] = f"{first:%Y-%m-%d %H:%M} to {end} UTC"
    return {name: value for name, value in values.items() if value is not None}


def headline(run: Contents) -> dict[str, str]:
    """The few numbers that matter most, by name, as people read them."""
    numbers = {}
    for result in run.results[:1]:
        for readout, values in result["readouts"].items():
            numbers[f"mIoU, {title(readout)}, {result['split']}"] = f"{100 * values['miou']:.1f} %"
        numbers["images evaluated"] = f"{result['images']:,}"
    if run.steps:
        last, planned = run.steps[-1], _value(run.config, "schedule.steps")
        unfinished = isinstance(planned, int) and last["step"] < planned
        numbers[f"of {planned:,} steps trained" if unfinished else "steps trained"] = f"{last['step']:,}"
        if isinstance(last.get("loss"), int | float):
            numbers["last loss"] = f"{last['loss']:.3f}"
        speeds = sorted(v for row in run.steps if isinstance(v := row.get("images_per_s"), int | float))
        if speeds:
            numbers["images a second, median"] = f"{speeds[len(speeds) // 2]:,.1f}"
    return numbers


def title(readout: str) -> str:
    """A read-out as people say it."""
    return "neighbours (oracle)" if readout == "neighbours_oracle" else readout


def _plain(each: curves.Curves) -> dict[str, Any]:
    series = {name: points.tolist() for name, points in each.series.items()}
    return {"title": each.title, "across": each.across, "series": series}


def _value(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
