"""Trainings for comparisons: the verbs as a user types them, one after another.

What is there is not repeated, and a broken-off training goes on from its checkpoint."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = (
    *(
        "model.backbone=resnet10t",
        "model.pretrained=false",
        "model.output_stride=8",
        "model.norm_momentum=0.1",
    ),
    *("optimizer.lr=0.01", "optimizer.head_multiplier=2", "optimizer.clip_norm=1.0"),
    *("stream.batch=4", "stream.crop=96", "loss.pixels_per_segment=null", "engine.workers=1", "cam.lr=null"),
)
"""a smaller network from scratch on smaller batches, so that a comparison fits into a day of two CPU cores"""

PROGRAM = ("spml_dist",)
QUIET = ("tracking.previews=0", "tracking.every=50", "checkpoint.keep=1", "evaluation.pictures=0")


def pack(out: Path, folder: Path, split: str, name: str, *words: str) -> Path:
    """`spml-dist pack folder` into OUT/data/NAME, which is returned relative to OUT."""
    packed = Path("data") / name
    if not (out / packed / "manifest.json").exists():
        verb(out, "pack", "folder", str(folder.resolve()), "--split", split, "--out", str(packed), *words)
    return packed


def train(
    out: Path,
    config: str,
    run: str,
    steps: int,
    split: str,
    data: dict[str, Path],
    *words: str,
    program: Sequence[str] = PROGRAM,
) -> None:
    """Train OUT/runs/RUN alone and evaluate it, or do what is left of that.

    config: file of configs/; data: packs by split, relative to OUT; words: overrides; program: what trains.
    """
    found = result(out, run, split)
    if found and found["step"] == steps:
        return
    overrides = [
        f"name={run}",
        f"schedule.steps={steps}",
        *(f"data.{part}={path}" for part, path in data.items()),
    ]
    start = ("train", str(ROOT / "configs" / config), "--alone")
    spent = verb(out, *start, *overrides, *SMALL, *QUIET, *words, program=program)
    with (out / "runs" / run / "cpu.txt").open("a") as file:
        file.write(f"{spent}\n")
    verb(out, "evaluate", f"runs/{run}", "--split", split)


def result(out: Path, run: str, split: str) -> dict | None:
    """What `evaluate` wrote of a run, or None."""
    path = out / "runs" / run / ("result.json" if split == "val" else f"result_{split}.json")
    return json.loads(path.read_text()) if path.exists() else None


def cpu_seconds(out: Path, run: str) -> float:
    """Processor time of a run's training processes, start included."""
    return sum(map(float, (out / "runs" / run / "cpu.txt").read_text().split()))


def verb(out: Path, *words: str, program: Sequence[str] = PROGRAM) -> float:
    """Run a verb in OUT, its output in OUT/log.txt; its processor time in seconds."""
    print("spml-dist", *words, file=sys.stderr, flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (out / "log.txt").open("a") as log:
        command = [sys.executable, "-m", *program, *words]
        subprocess.run(command, cwd=out, env=environment, check=True, stdout=log, stderr=log)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def logged(out: Path, run: str, key: str, after: int) -> float | None:
    """Mean of what a run logged after a step, or None where it logged nothing."""
    lines = (out / "runs" / run / "metrics.jsonl").read_text().splitlines()
    entries = [entry for entry in map(json.loads, lines) if entry["step"] > after]
    values = [entry[key] for entry in entries if key in entry]
    return statistics.mean(values) if values else None


def write(out: Path, name: str, rows: Sequence[dict], table: Iterable[Sequence[str]]) -> None:
    """OUT/NAME.json, and OUT/NAME.md, which is printed too. table: cells, the head first."""
    (out / f"{name}.json").write_text(json.dumps(rows, indent=2) + "\n")
    head, *body = table
    rule = ["---" if number == 0 else "---:" for number in range(len(head))]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *body)]
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


def mean(values: Iterable[float | None], digits: int = 2) -> str:
    """Mean ± deviation of the values there are."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.{digits}f}{spread}"
