"""Files that are there whole or not at all: written beside their place and renamed into it.

The one way in which this package writes a file that somebody reads later. Logs, which grow line by line, and
folders, which are renamed as a whole, are the exceptions.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spml_dist.errors import RunError

WRITABLE = "choose a writable place"
LONGEST = 255
"""bytes of a file's name"""


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the block ends; after an error nothing does.

    For libraries that write files themselves. durable: nor may a crash of the machine leave half of the file:
    it is on the disk before it has the name, and the name is before the block is over. Raises OSError.
    """
    aside = _aside(path)
    try:
        aside.unlink(missing_ok=True)  # of a writer that was killed; some libraries would add to it
        yield aside
        if durable:
            flush(aside)
        os.replace(aside, path)
        if durable:
            flush(path.parent)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def _aside(path: Path) -> Path:
    """Beside the path, as .tmp; with a short name where the path's is as long as a name can be."""
    name = f"{path.name}.tmp"
    long = len(os.fsencode(name)) > LONGEST
    return path.with_name(f"{hashlib.sha256(os.fsencode(name)).hexdigest()}.tmp" if long else name)


def require_place(path: Path, remedy: str = WRITABLE) -> None:
    """Raise RunError for a path that no file can be written to, before what it is to hold takes long.

    Folders above it are made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise RunError(f"{path}: cannot be written", error.strerror, remedy) from error


def write_text(path: Path, text: str, remedy: str = WRITABLE) -> None:
    """Write a text as UTF-8. Raises RunError, with the remedy, if that cannot be done."""
    write_bytes(path, text.encode(), remedy)


def write_json(path: Path, value: Any, sort_keys: bool = True, remedy: str = WRITABLE) -> None:
    """Write plain data as indented JSON. Raises RunError as `write_text`."""
    text = json.dumps(value, sort_keys=sort_keys, indent=2, ensure_ascii=False)
    write_text(path, f"{text}\n", remedy)


def write_bytes(path: Path, content: bytes, remedy: str = WRITABLE) -> None:
    """Write a file. Raises RunError as `write_text`."""
    try:
        with replacing(path) as aside:
            aside.write_bytes(content)
    except OSError as error:
        raise RunError(f"{path}: cannot be written", error.strerror, remedy) from error


def flush(path: Path) -> None:
    """Have a file's content, or a folder's list of names, on the disk. Raises OSError for a file.

    Some file systems that machines share refuse it for folders, of which they take care themselves.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)
