"""Checkpoints of a run, written aside and renamed into place.

checkpoints/
  latest                  name of the newest whole checkpoint
  step_000400/
    engine/               weights.safetensors (with batch-norm statistics), momentum.safetensors
    bank/rows.safetensors
    stream.json           where the stream goes on
    config.yaml
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from spml_dist import comm
from spml_dist.bank.recent import RecentBank
from spml_dist.config import Config, dump
from spml_dist.engine.plain import Plain
from spml_dist.engine.zero import Zero
from spml_dist.errors import RunError

ENGINE = ("weights", "momentum")


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds; nothing of it depends on the number of workers."""

    engine: dict[str, dict[str, Tensor]]
    """"weights" and "momentum" by name, on the CPU"""
    bank: dict[str, Tensor]
    stream: dict
    """where the stream goes on"""


def save(engine: Zero | Plain, bank: RecentBank, stream_state: dict, config: Config, folder: Path) -> Path:
    """Write checkpoints/step_NNNNNN; a collective. Only whole checkpoints ever bear that name."""
    state = engine.state()
    final = folder / f"step_{stream_state['step']:06d}"
    aside = folder / (final.name + ".tmp")
    if comm.rank() == 0:
        shutil.rmtree(aside, ignore_errors=True)
        try:
            for part in ENGINE:
                _tensors(aside / "engine" / f"{part}.safetensors", state[part])
            _tensors(aside / "bank" / "rows.safetensors", bank.state())
            (aside / "stream.json").write_text(json.dumps(stream_state) + "\n")
            (aside / "config.yaml").write_text(dump(config), encoding="utf-8")
            shutil.rmtree(final, ignore_errors=True)
            os.replace(aside, final)
            _write(folder / "latest", final.name + "\n")
        except (OSError, SafetensorError) as problem:
            remedy = "make room; the same command goes on from the checkpoint before"
            raise RunError(f"{final} cannot be written", problem, remedy) from problem
        _prune(final, config.checkpoint.keep)
    comm.barrier()
    return final


def _tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, path)


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, or None."""
    try:
        path = folder / (folder / "latest").read_text().strip()
    except FileNotFoundError:
        return None
    if not (path / "stream.json").is_file():
        raise RunError(
            f"{path} is missing although {folder / 'latest'} names it", None, "restore it or remove the run"
        )
    return path


def step_of(path: Path) -> int:
    """Steps that a checkpoint has behind it."""
    return int(path.name.removeprefix("step_"))


def read(path: Path) -> Saved:
    """What `save` wrote, whichever engine and number of workers wrote it."""
    try:
        engine = {part: load_file(path / "engine" / f"{part}.safetensors") for part in ENGINE}
        bank = load_file(path / "bank" / "rows.safetensors")
        return Saved(engine, bank, json.loads((path / "stream.json").read_text()))
    except (OSError, ValueError, SafetensorError) as problem:
        raise RunError(
            f"{path} cannot be read", problem, "remove it and name an older one in latest"
        ) from problem


def _write(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(text)
    os.replace(aside, path)


def _prune(newest: Path, keep: int) -> None:
    """Later ones than the newest are from before a return to an older one: they will be written again."""
    whole = [p for p in newest.parent.glob("step_*") if p.suffix != ".tmp" and step_of(p) <= step_of(newest)]
    for old in (*sorted(whole, key=step_of)[:-keep], *newest.parent.glob("step_*.tmp")):
        shutil.rmtree(old, ignore_errors=True)
