"""Checkpoints of a run, written aside and renamed into place.

checkpoints/
  latest                  name of the newest whole checkpoint
  step_000400/
    engine/               DeepSpeed's state: weights, momentum, batch-norm statistics
    bank/rows.safetensors
    stream.json           where the stream goes on
    config.yaml
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from spml_dist import comm
from spml_dist.bank.recent import RecentBank
from spml_dist.config import Config, dump
from spml_dist.engine import zero
from spml_dist.errors import RunError

DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, UnpicklingError, SafetensorError)
"""what DeepSpeed, torch, safetensors and json raise on a file that is missing, cut short or garbled"""


def save(wrapped, bank: RecentBank, stream_state: dict, config: Config, folder: Path) -> Path:
    """Write checkpoints/step_NNNNNN; a collective. Only whole checkpoints ever bear that name."""
    final = folder / f"step_{stream_state['step']:06d}"
    aside = folder / (final.name + ".tmp")
    if comm.rank() == 0:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    comm.barrier()
    zero.save(wrapped, aside / "engine")
    if comm.rank() == 0:
        (aside / "bank").mkdir()
        save_file(
            {k: v.cpu().contiguous() for k, v in bank.state().items()}, aside / "bank" / "rows.safetensors"
        )
        (aside / "stream.json").write_text(json.dumps(stream_state) + "\n")
        (aside / "config.yaml").write_text(dump(config), encoding="utf-8")
    comm.barrier()
    if comm.rank() == 0:
        shutil.rmtree(final, ignore_errors=True)
        os.replace(aside, final)
        _write(folder / "latest", final.name + "\n")
        _prune(final, config.checkpoint.keep)
    comm.barrier()
    return final


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


def restore(path: Path, wrapped, bank: RecentBank) -> dict:
    """Put a checkpoint back into engine and bank; returns the stream's state. A collective."""
    try:
        zero.load(wrapped, path / "engine")
        bank.restore(load_file(path / "bank" / "rows.safetensors", device=str(wrapped.device)))
        return json.loads((path / "stream.json").read_text())
    except DAMAGE as problem:
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
