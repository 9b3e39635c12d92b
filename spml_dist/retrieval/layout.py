"""The folder of an index: its files, what index_infos.json says of them, one builder at a time.

DIR/
  index_infos.json           what the index is; a folder with it is an index
  image.index                FAISS
  metadata/*.parquet         its rows in the same order, with names
  rows.arrow                 the same, coded, as queries read them
  vectors.npy                the vectors themselves, half precision: answers are ordered by them
  .indexing/                 what an unfinished build has done
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from spml_dist.errors import RunError

INFOS, INDEX, METADATA, ROWS, VECTORS = (
    *("index_infos.json", "image.index", "metadata"),
    *("rows.arrow", "vectors.npy"),
)
UNFINISHED, WHOLE = ".indexing", "whole"
LOCK = ".indexing.lock"
VERSION = 1

DIGESTED = 1 << 28
"""bytes: files of an index no larger than this together are compared with their digests at every opening"""


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of every file that a complete folder holds beside its infos."""
    names = [
        INDEX,
        ROWS,
        VECTORS,
        *(f"{METADATA}/{path.name}" for path in sorted((folder / METADATA).iterdir())),
    ]
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)} for name in names
    }


def read_infos(folder: Path) -> dict[str, Any]:
    """What an index is. Raises RunError for a folder that holds none."""
    remedy = "give the folder that `spml-dist index` wrote"
    try:
        infos = json.loads((folder / INFOS).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as problem:
        if (folder / UNFINISHED).exists():
            remedy = "the same `spml-dist index` goes on with it"
        raise RunError(f"{folder}: no index, it has no {INFOS}", None, remedy) from problem
    except (OSError, ValueError) as problem:
        raise RunError(f"{folder / INFOS}: cannot be read", problem, remedy) from problem
    if not isinstance(infos, dict) or infos.get("version") != VERSION:
        version = infos.get("version") if isinstance(infos, dict) else None
        raise RunError(f"{folder / INFOS}: version of the index", version, "build it again with this release")
    return infos


def require_whole(folder: Path, infos: dict[str, Any], digests: bool | None = None) -> None:
    """Raise RunError, naming the file, unless an index's files are those that its infos promise.

    digests: compare their content too; None = where that is quick.
    """
    files = infos["files"]
    if digests is None:
        digests = sum(file["bytes"] for file in files.values()) <= DIGESTED
    for name, file in files.items():
        try:
            size = (folder / name).stat().st_size
        except OSError as problem:
            raise RunError(f"{folder / name}: cannot be read", problem.strerror, _REBUILD) from problem
        if size != file["bytes"]:
            raise RunError(f"{folder / name}: not the {file['bytes']} bytes of {INFOS}", size, _REBUILD)
        if digests and _sha256(folder / name) != file["sha256"]:
            raise RunError(f"{folder / name}: its content is not that of {INFOS}", None, _REBUILD)


_REBUILD = "the files of the index disagree: build it again"


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """The only builder of a folder; yields where unfinished work lies. Raises RunError for a second one, and
    for a folder of anything else: its files would make room for those of the index.
    """
    _require_ours(folder)
    try:
        (folder / UNFINISHED).mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        with lock.acquire(blocking=False):
            finish(folder)
            (folder / UNFINISHED).mkdir(exist_ok=True)
            try:
                yield folder / UNFINISHED
            finally:
                _leave_nothing(folder)
    except Timeout as problem:
        remedy = "wait for it, or give another --out"
        raise RunError(f"{folder}: another process builds an index there", None, remedy) from problem
    except OSError as problem:
        where = problem.filename or folder
        raise RunError(
            f"{where}: cannot be written", problem.strerror, "make room, the same command goes on"
        ) from problem


def _require_ours(folder: Path) -> None:
    remedy = "choose an empty folder or a new one as --out"
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: no folder", None, remedy)
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if names - {LOCK} and not names & {INFOS, UNFINISHED}:
        raise RunError(f"{folder}: holds other files than an index", min(names - {LOCK}), remedy)


def _leave_nothing(folder: Path) -> None:
    """Of a build that ended before it had finished anything."""
    with suppress(OSError):  # there is something
        (folder / UNFINISHED).rmdir()
    if {path.name for path in folder.iterdir()} == {LOCK}:
        (folder / LOCK).unlink()
        folder.rmdir()


def finish(folder: Path) -> None:
    """Put a whole new index in the place of the old one; a kill on the way is made good by the next call."""
    whole = folder / UNFINISHED / WHOLE
    if not (whole / INFOS).exists():
        return
    (folder / INFOS).unlink(missing_ok=True)  # until it is back there is no index
    if (whole / METADATA).exists():
        shutil.rmtree(folder / METADATA, ignore_errors=True)
    for name in (INDEX, METADATA, ROWS, VECTORS, INFOS):
        if (whole / name).exists():
            os.replace(whole / name, folder / name)
    shutil.rmtree(folder / UNFINISHED)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
