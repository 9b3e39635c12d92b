"""Shards fetched from addresses, kept on this machine: each is fetched once for all of its processes.

FOLDER/
  SHA256.tar      a whole shard of the manifest's size and digest
  SHA256.lock     empty; held while one process fetches
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import BaseFileLock, FileLock, Timeout

from spml_dist.data.format.manifest import Shard
from spml_dist.errors import DataError
from spml_dist.files import address
from spml_dist.files.write import replacing


@dataclass(frozen=True)
class ShardCache:
    """Where fetched shards lie and how much room they may take."""

    folder: str | None = None
    """None: a folder of the user's own in the machine's temporary folder (TMPDIR)"""
    gb: float = 50
    """10⁹ bytes; beyond them the longest unused go first, whose room is free when no reader has them open"""
    retry_seconds: float = 60

    def open(self, url: str, shard: Shard) -> BinaryIO:
        """A remote shard, opened where it lies on this machine, fetched and checked before if need be.

        Raises DataError, naming the address: it cannot be read, or is not of the manifest's size and digest.
        """
        path = self._path(url, shard)
        try:
            if file := _opened(path):  # without the lock, which every reader would wait for
                return file
            with _lock(path):
                # Another process may have fetched it while this one waited.
                return _opened(path) or self._fetched(url, shard, path)
        except OSError as error:
            raise self._unusable(url, error) from error

    def fetch_ahead(self, url: str, shard: Shard) -> None:
        """Fetch a remote shard unless it is there or another process is at it. Raises DataError as `open`."""
        path = self._path(url, shard)
        try:
            with _lock(path).acquire(blocking=False):
                if not path.exists():
                    self._fetched(url, shard, path).close()
        except Timeout:
            return
        except OSError as error:
            raise self._unusable(url, error) from error

    def _path(self, url: str, shard: Shard) -> Path:
        if not shard.sha256.isalnum():
            raise DataError(f"{url}: not a sha256 in its manifest", shard.sha256, "pack again")
        return self._place() / f"{shard.sha256}.tar"

    def _place(self) -> Path:
        return Path(self.folder or Path(tempfile.gettempdir()) / f"spml-dist-{os.getuid()}")

    def _fetched(self, url: str, shard: Shard, path: Path) -> BinaryIO:
        with replacing(path) as aside:
            address.fetch(url, aside, self.retry_seconds)
            check(url, aside, shard)
            file = aside.open("rb")  # before it has the name under which others can remove it
        self._tidy(newest=path)
        return file

    def _tidy(self, newest: Path) -> None:
        # Removing takes a name away and no content: who has a shard open reads on.
        room = self.gb * 1e9
        for _, size, path in sorted(_entries(newest.parent), reverse=True):
            room -= size
            if room < 0 and path != newest:
                path.unlink(missing_ok=True)

    def _unusable(self, url: str, error: OSError) -> DataError:
        return DataError(
            f"{self._place()}: cannot hold {url}", error.strerror, "choose another stream.cache or make room"
        )


def check(name: str, path: Path, shard: Shard) -> None:
    """Raise DataError, calling the file `name`, if it has not the size and digest of its manifest."""
    if (size := path.stat().st_size) != shard.bytes:
        raise _differs(name, "bytes", shard.bytes, size)
    with path.open("rb") as tar:
        digest = hashlib.file_digest(tar, "sha256").hexdigest()
    if digest != shard.sha256:
        raise _differs(name, "as sha256", shard.sha256, digest)


def _differs(name: str, what: str, promised: object, actual: object) -> DataError:
    return DataError(
        f"{name}: not the {promised} {what} that the manifest promises",
        actual,
        "pack or copy the shard again",
    )


def _opened(path: Path) -> BinaryIO | None:
    """The file, which now counts as used, or None."""
    try:
        os.utime(path)
        return path.open("rb")
    except FileNotFoundError:
        return None


def _entries(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """(time of last use, bytes, path) of the shards in the cache; others may remove some meanwhile."""
    for path in folder.glob("*.tar"):
        try:
            entry = path.stat()
        except FileNotFoundError:
            continue
        yield entry.st_mtime, entry.st_size, path


def _lock(path: Path) -> BaseFileLock:
    """The lock of a shard, which a process that dies gives back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_suffix(".lock"))
