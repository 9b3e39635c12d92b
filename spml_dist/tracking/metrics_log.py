"""What a run says of itself: metrics.jsonl, a line per logged step, and train.log for people."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import psutil

from spml_dist.errors import RunError
from spml_dist.files.write import write_text
from spml_dist.run_folder import RunFolder


class Stopwatch:
    """Seconds spent in each phase since the last lap.

    On a GPU, of the device's time: its work runs behind the host's, so that a clock of the host would book
    the network's time wherever the host waits next. Nothing waits but `lap`.
    """

    def __init__(self, step: int, on_gpu: bool = False):
        self._now = _event if on_gpu else time.perf_counter
        self._between = _between_events if on_gpu else _between_times
        self._lap: Any = self._now()
        self._ends: list[tuple[str, Any]] = []
        self._step = step

    def phase(self, name: str) -> None:
        """What happened since the last call was `name`."""
        self._ends.append((name, self._now()))

    def lap(self, step: int) -> tuple[dict[str, float], float]:
        """Seconds a step of each phase, and of everything, since the last lap; step: how many are done."""
        steps, start, now = max(1, step - self._step), self._lap, self._now()
        seconds = self._between(start, now) / steps
        phases: dict[str, float] = {}
        for name, end in self._ends:
            phases[name] = phases.get(name, 0.0) + self._between(start, end) / steps
            start = end
        self._ends, self._lap, self._step = [], now, step
        return phases, seconds


def _between_times(before: float, after: float) -> float:
    return after - before


def _event() -> Any:
    import torch

    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between_events(before: Any, after: Any) -> float:
    after.synchronize()
    return before.elapsed_time(after) / 1000


class Journal:
    """Appends to RUN/metrics.jsonl and RUN/train.log; every line is on disk when the call returns.

    Raises RunError where the disk refuses a line; part of it may be there, which `truncate` takes away.
    """

    def __init__(self, folder: Path):
        self._metrics = RunFolder(folder).metrics.open("a", encoding="utf-8", buffering=1)
        self._log = RunFolder(folder).train_log.open("a", encoding="utf-8", buffering=1)

    def say(self, text: str) -> None:
        _append(self._log, text)

    def step(self, entry: dict) -> None:
        """Log a step; its `timestamp`, milliseconds since 1970, is added."""
        when = {"timestamp": int(1000 * time.time())}
        _append(self._metrics, json.dumps(entry | when))
        self.say(line(entry))

    def close(self) -> None:
        for file in (self._metrics, self._log):
            with suppress(OSError):  # of a line that was refused before, which is told already
                file.close()


def _append(file: TextIO, text: str) -> None:
    try:
        file.write(text + "\n")
    except OSError as problem:
        remedy = "make room; the same command goes on from the last checkpoint"
        raise RunError(f"{file.name} cannot be written", problem.strerror, remedy) from problem


def truncate(path: Path, step: int) -> None:
    """Drop the entries after a step from metrics.jsonl: they are about to be written again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [text for text in lines if _step_of(text) <= step]
    write_text(path, "".join(kept))


def last_step(path: Path) -> int:
    """Step of the last whole entry of metrics.jsonl, 0 without one."""
    if not path.exists():
        return 0
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return next((int(step) for text in reversed(lines) if (step := _step_of(text)) < math.inf), 0)


def _step_of(text: str) -> float:
    """Step of an entry; infinite for a line that a crash has torn."""
    try:
        return json.loads(text)["step"] if text.endswith("\n") else math.inf
    except ValueError:
        return math.inf


def line(entry: dict) -> str:
    """One logged step as people read it."""
    names = {
        "annotation": "ann",
        "cooccurrence": "occ",
        "image_similarity": "img",
        "feature_affinity": "aff",
        "cross_entropy": "ce",
    }
    terms = "  ".join(
        f"{short} {entry[f'loss/{term}']:.3f}" for term, short in names.items() if f"loss/{term}" in entry
    )
    if "tags/precision" in entry:
        terms = f"tags precision {entry['tags/precision']:.2f} recall {entry['tags/recall']:.2f}"
    skipped = f"skipped {entry['stream/skipped']}  " if entry.get("stream/skipped") else ""
    left = "?" if entry["eta_s"] is None else duration(entry["eta_s"])
    return (
        f"step {entry['step']:>6}  loss {entry['loss']:.4f}  {terms}  lr {entry['lr']:.2e}  "
        f"{skipped}{entry['images_per_s']:.1f} img/s  {entry['memory_mb'] / 1024:.1f} GB  left {left}"
    )


def duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def memory_mb() -> float:
    """Resident memory of this process and its loader processes."""
    process = psutil.Process()
    total = process.memory_info().rss
    for child in process.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.Error:
            continue
    return total / 2**20
