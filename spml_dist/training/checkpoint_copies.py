"""Checkpoints elsewhere too, for machines that may be gone tomorrow: each whole one is copied to an address.

ADDRESS/NAME/
  checkpoints.json     the whole ones, oldest first: name -> its files
  metrics.jsonl, ...   BESIDE, as they were when the newest was copied
  step_000400/         as in the run folder
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from spml_dist.errors import RunError, SpmlError
from spml_dist.files import address
from spml_dist.files.write import replacing
from spml_dist.run_folder import LATEST, RunFolder
from spml_dist.training import checkpoint

LISTING = "checkpoints.json"
BESIDE = ("metrics.jsonl", "train.log", "mlflow.json", "restarts.jsonl")
"""files of a run folder that a run continues"""


class CheckpointCopies:
    """Of one run, by rank 0. Steps and checkpoints never wait for a copy."""

    def __init__(self, place: str, run: RunFolder, keep: int, say: Callable[[str], None]):
        """place: address of a folder; keep: how many stay there; say: is told what could not be copied."""
        self._base, self._run, self._keep, self._say = f"{place.rstrip('/')}/{run.path.name}", run, keep, say
        self._thread = ThreadPoolExecutor(1, "checkpoint copy")
        self._task: Future[None] | None = None
        self._newest: Path | None = None
        self._copied: Path | None = None

    def offer(self, path: Path) -> None:
        """Begin to copy a whole checkpoint. One that comes while another is on its way is left out."""
        self._newest = path
        if self._task is None or self._task.done():
            self._task = self._thread.submit(self._copy, path)

    def close(self) -> None:
        """Wait for what is on its way, and for the newest."""
        if self._task:
            self._task.result()
        if self._newest and self._newest != self._copied:
            self._copy(self._newest)
        self._thread.shutdown()

    def _copy(self, path: Path) -> None:
        """The files, then the listing that names them. A run goes on without: the next one may succeed."""
        try:
            there = _listed(self._base)
            step = checkpoint.step_of(path)
            # Later ones are from before a return to an older one, and this one's name may be too.
            older = {name: files for name, files in there.items() if checkpoint.step_of(Path(name)) < step}
            self._store(LISTING, json.dumps(older).encode())
            files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
            for name in files:
                address.store(path / name, f"{self._base}/{path.name}/{name}")
            for name in BESIDE:
                if (self._run.path / name).exists():
                    self._store(name, (self._run.path / name).read_bytes())
            kept = dict([*older.items(), (path.name, files)][-self._keep :])
            self._store(LISTING, json.dumps(kept).encode())
            for name in there.keys() - kept.keys():
                _remove(f"{self._base}/{name}", there[name])
            self._copied = path
        except (SpmlError, OSError) as problem:  # OSError: it was pruned meanwhile
            self._say(f"{path.name} is not copied: {problem}")

    def _store(self, name: str, content: bytes) -> None:
        with tempfile.NamedTemporaryFile() as file:  # a copy of what may grow meanwhile
            file.write(content)
            file.flush()
            address.store(Path(file.name), f"{self._base}/{name}")


def fetch(place: str, run: RunFolder) -> str | None:
    """Get the newest checkpoint that was copied, with what lies beside it, where a run folder has none.

    Returns its name, None where nothing was fetched. Raises RunError or DataError for an address that cannot
    be read, for a listing that is none, and where the run folder cannot be written.
    """
    if checkpoint.latest(run.checkpoints):
        return None
    base = f"{place.rstrip('/')}/{run.path.name}"
    if not (there := _listed(base)):
        return None
    name, files = list(there.items())[-1]
    try:
        _fetch(base, name, files, run)
    except OSError as problem:  # other ranks wait to hear of it
        remedy = "make room, or choose another output"
        raise RunError(f"{run.checkpoints} cannot be written", problem, remedy) from problem
    return name


def _fetch(base: str, name: str, files: Iterable[str], run: RunFolder) -> None:
    aside = run.checkpoints / f"{name}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    for file in files:
        (aside / file).parent.mkdir(parents=True, exist_ok=True)
        address.fetch(f"{base}/{name}/{file}", aside / file, address.RETRY_SECONDS)
    found = address.sizes(base)
    for beside in BESIDE:
        if beside in found and not (run.path / beside).exists():
            address.fetch(f"{base}/{beside}", run.path / beside, address.RETRY_SECONDS)
    os.replace(aside, run.checkpoints / name)
    with replacing(run.checkpoints / LATEST, durable=True) as newest:
        newest.write_text(name + "\n")


def _listed(base: str) -> dict[str, list[str]]:
    """Whole checkpoints below an address, oldest first: name -> files. Raises RunError where none are listed
    as they should be."""
    if LISTING not in address.sizes(base):
        return {}
    try:
        there = json.loads(address.read(f"{base}/{LISTING}", address.RETRY_SECONDS))
        if not all(checkpoint.is_name(name) and all(map(_inside, files)) for name, files in there.items()):
            raise ValueError("a name leads elsewhere")
    except (ValueError, TypeError, AttributeError, RecursionError) as problem:
        remedy = "remove it, or give another checkpoint.remote"
        raise RunError(f"{base}/{LISTING} lists no checkpoints", problem, remedy) from problem
    return there


def _inside(file: str) -> bool:
    path = PurePosixPath(file)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _remove(folder: str, files: Iterable[str]) -> None:
    for parent in {str(PurePosixPath(file).parent) for file in files}:
        address.remove(folder if parent == "." else f"{folder}/{parent}")
