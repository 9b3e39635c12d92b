"""Checkpoints of a run as they are read; `checkpoint_writer` writes them aside and renames them into place.

checkpoints/
  latest                  name of the newest whole checkpoint
  step_000400/
    engine/               weights.safetensors (with batch-norm statistics), momentum.safetensors;
                          second_moment.safetensors of AdamW; slow.safetensors of a momentum encoder
    bank/                 of the last steps: rows.safetensors; of the data set: manifest.json, a file for each
                          partition, and one for each rank's inverted file (spml_dist.bank.snapshot)
    stream.json           where the stream goes on
    config.yaml
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from spml_dist.bank import snapshot
from spml_dist.errors import RunError
from spml_dist.run_folder import LATEST
from spml_dist.training.engine import EngineState

ENGINE = ("weights", "momentum")
ENCODER = "slow"
BESIDE = ("second_moment", ENCODER)
"""of AdamW, of a momentum encoder"""
BANK = "bank"
_NAME = re.compile(r"step_\d+")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds beside the bank; nothing of it depends on the number of workers."""

    engine: EngineState
    """"weights" and "momentum" by name, "second_moment" of AdamW and "slow" of a momentum encoder, on the
    CPU"""
    stream: dict
    """where the stream goes on"""


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None. Raises RunError where `latest` names none of them."""
    try:
        name = (folder / LATEST).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        # Killed before it was written for the first time.
        return max(_whole(folder), key=step_of, default=None)
    except OSError as problem:
        raise RunError(f"{folder / LATEST} cannot be read", problem.strerror, "restore it") from problem
    if not _NAME.fullmatch(name):
        there = ", ".join(path.name for path in sorted(_whole(folder), key=step_of)) or "none is there"
        remedy = f"write the name of a checkpoint into it: {there}"
        raise RunError(f"{folder / LATEST} names no checkpoint", repr(name[:40]), remedy)
    path = folder / name
    if not (path / "stream.json").is_file():
        raise RunError(
            f"{path} is missing although {folder / LATEST} names it", None, "restore it or remove the run"
        )
    return path


def is_name(text: str) -> bool:
    """Whether it is what a checkpoint is called."""
    return bool(_NAME.fullmatch(text))


def _whole(folder: Path) -> list[Path]:
    """Those that were finished, with those that somebody has spoilt since."""
    return [path for path in folder.glob("step_*") if _NAME.fullmatch(path.name)]


def require_whole(path: Path) -> None:
    """Raise RunError, naming it, where a checkpoint's file is gone or cut; contents are not read."""
    stream_state(path)
    for part in ENGINE:
        file = path / "engine" / f"{part}.safetensors"
        try:
            with safe_open(file, framework="pt"):  # compares the header with the size
                pass
        except (OSError, SafetensorError) as problem:
            raise _unreadable(file, problem) from problem
    snapshot.require_whole(path / BANK)


def step_of(path: Path) -> int:
    """Steps that a checkpoint has behind it."""
    return int(path.name.removeprefix("step_"))


def read(path: Path) -> Checkpoint:
    """What a run wrote beside the bank, whichever engine and number of workers wrote it."""
    try:
        files = {part: path / "engine" / f"{part}.safetensors" for part in (*ENGINE, *BESIDE)}
        engine = {part: load_file(file) for part, file in files.items() if part in ENGINE or file.exists()}
    except (OSError, ValueError, SafetensorError) as problem:
        raise _unreadable(path, problem) from problem
    return Checkpoint(engine, stream_state(path))


def stream_state(path: Path) -> dict:
    """Where a checkpoint's stream of samples was. Raises RunError for a damaged file."""
    try:
        state = json.loads((path / "stream.json").read_text(encoding="utf-8"))
        if not (isinstance(state, dict) and type(state.get("step")) is int and state["step"] >= 0):
            raise ValueError("stream.json holds no step")
    except (OSError, ValueError, RecursionError) as problem:
        raise _unreadable(path, problem) from problem
    return state


def _unreadable(path: Path, problem: Exception) -> RunError:
    return RunError(f"{path} cannot be read", problem, "remove it and name an older one in latest")


def prune(newest: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints, and what is half written.

    Later ones than the newest are from before a return to an older one: they will be written again. Others
    that somebody put there under a name of his own stay.
    """
    whole = [path for path in _whole(newest.parent) if step_of(path) <= step_of(newest)]
    for old in (*sorted(whole, key=step_of)[:-keep], *newest.parent.glob("step_*.tmp")):
        shutil.rmtree(old, ignore_errors=True)
