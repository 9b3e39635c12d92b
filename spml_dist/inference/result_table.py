"""An evaluation's numbers as a table for people."""

from __future__ import annotations

import statistics
from typing import Any


def markdown(result: dict[str, Any]) -> str:
    """The read-outs side by side in per cent: IoU of each class, its mean, pixel accuracy.

    result: as `evaluate` gives it, with the run's name as `run`.
    """
    readouts = result["readouts"]
    present, classes = set(result["classes_present"]), result["classes"]
    rows = [[name, *(v["iou"][name] for v in readouts.values())] for name in classes]
    rows += [["mean IoU", *(v["miou"] for v in readouts.values())]]
    if 0 < len(present) < len(classes):  # absent classes count as 0 in the mean of all
        means = (statistics.mean(v["iou"][name] for name in present) for v in readouts.values())
        rows += [["mean of shown classes", *means]]
    if all("boundary_miou" in v for v in readouts.values()):  # results of earlier releases have none
        rows += [["mean boundary IoU", *(v["boundary_miou"] for v in readouts.values())]]
    rows += [["pixel accuracy", *(v["pixel_accuracy"] for v in readouts.values())]]
    absent = set(classes) - present
    names = [f"{name} (not shown)" if name in absent else name for name, *_ in rows]
    titles = [name.replace("_oracle", " (oracle)") for name in readouts]
    first = max(map(len, [*names, "class"]))
    lines = [f"| {'class':<{first}} | " + " | ".join(titles) + " |"]
    lines += [f"| {'-' * first} | " + " | ".join("-" * (len(title) - 1) + ":" for title in titles) + " |"]
    for name, (_, *values) in zip(names, rows, strict=True):
        cells = [f"{100 * value:>{len(title)}.1f}" for value, title in zip(values, titles, strict=True)]
        lines.append(f"| {name:<{first}} | " + " | ".join(cells) + " |")
    ways = "".join(f", {way}" for way in result.get("ways", ()))
    head = f"{result['run']} on {result['split']}{ways}: {result['images']} images, IoU in per cent"
    pack = [f"pack: {result['pack']}"] if "pack" in result else []
    return "\n".join([head, *pack, "", *lines]) + "\n"
