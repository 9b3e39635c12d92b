"""Whether a run that was disturbed is the one that nobody disturbed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spml_dist.bank.snapshot_manifest import read_manifest
from spml_dist.training import checkpoint

PASSING = ("time/", "timestamp", "images_per_s", "memory_mb", "eta_s")
"""what depends on the machine"""


def logged(folder: Path) -> list[dict[str, Any]]:
    """Whole lines of metrics.jsonl."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def assert_same(disturbed: Path, undisturbed: Path) -> None:
    """Every step once with the same numbers; the same network; the same bank; to the bit."""
    one, other = (
        [{k: v for k, v in entry.items() if not k.startswith(PASSING)} for entry in logged(folder)]
        for folder in (disturbed, undisturbed)
    )
    assert (
        [entry["step"] for entry in one]
        == [entry["step"] for entry in other]
        == list(range(1, len(other) + 1))
    )
    assert one == other
    one, other = (checkpoint.latest(folder / "checkpoints") for folder in (disturbed, undisturbed))
    assert one.name == other.name
    assert read_manifest(one / "bank").digest == read_manifest(other / "bank").digest
    for file in ("checkpoints/" + one.name + "/engine/momentum.safetensors", "export/model.safetensors"):
        assert (disturbed / file).read_bytes() == (undisturbed / file).read_bytes(), file
    assert not list((disturbed / "checkpoints").glob("*.tmp"))


def seconds_to_go_on(folder: Path, failed_at: float, step: int) -> float:
    """From a failure (seconds since 1970) to the first step that was made after it and was not there before.
    step: the last one that was logged before."""
    return next(each["timestamp"] for each in logged(folder) if each["step"] > step) / 1000 - failed_at
