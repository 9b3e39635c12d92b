"""Where a pack is written: a folder, or an address. What is unfinished lies beside it, in `.packing`."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from spml_dist.data.format import manifest as manifests
from spml_dist.data.format.manifest import Manifest
from spml_dist.errors import DataError
from spml_dist.files import address

UNFINISHED = ".packing"
REJECTED = "rejected.jsonl"
_FINGERPRINT, _NEW_FOLDER, _LOCK = "fingerprint", "made", "lock"
"""what an unfinished pack is made from; a file that is there if the pack made its folder; one that is locked
while somebody packs"""


class OutputStore(Protocol):
    """What a place where packs are written can do. It travels to the processes that write."""

    def held(self) -> AbstractContextManager[None]:
        """Keep others from packing there while the block runs. Raises DataError where somebody does, and for
        a place with files that are no pack's."""

    def begin(self, fingerprint: str) -> dict[str, bytes]:
        """{name: content} of the records that an interrupted pack of this fingerprint has left."""

    def scratch(self, name: str) -> AbstractContextManager[Path]:
        """A path for a file in the making, gone afterwards."""

    def keep(self, path: Path, name: str) -> None:
        """Take over a finished file. A tar comes before the record that speaks of it."""

    def note(self, name: str, text: str) -> None:
        """Leave a record."""

    def tars(self) -> dict[str, int]:
        """{name: bytes} of the tars that were taken over."""

    def complete(self, manifest: Manifest, rejected: str) -> None:
        """Make the pack whole; the manifest comes last. rejected: content of rejected.jsonl, "" for none."""

    def clear(self) -> None:
        """Forget what is unfinished."""


@dataclass(frozen=True)
class FolderStore:
    """A folder of this machine, or one that several share. An earlier pack stays until `complete`."""

    out: Path

    @property
    def unfinished(self) -> Path:
        """Where everything lies until the pack is complete."""
        return self.out / UNFINISHED

    @contextmanager
    def held(self) -> Iterator[None]:
        self._require_ours()
        is_new = not self.out.exists()
        self.unfinished.mkdir(parents=True, exist_ok=True)
        if is_new:
            (self.unfinished / _NEW_FOLDER).touch()
        lock = FileLock(self.unfinished / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            remedy = "wait for it, or choose another --out"
            raise DataError(f"{self.out}: another process packs into it", None, remedy) from error
        try:
            yield
        finally:
            lock.release()

    def _require_ours(self) -> None:
        """Somebody's files do not become a pack's neighbours: a folder of both would be read as a pack."""
        if self.unfinished.exists() or (self.out / manifests.FILE).exists() or not self.out.is_dir():
            return
        ours = re.compile(rf"\..*|.*-[0-9]{{6}}\.tar|{re.escape(REJECTED)}")
        files = sorted(path.name for path in self.out.iterdir() if path.is_file())
        files = [name for name in files if not ours.fullmatch(name)]
        if files:
            remedy = "choose an empty folder or a new one"
            raise DataError(f"{self.out}: holds other files than a pack's", files[0], remedy)

    def begin(self, fingerprint: str) -> dict[str, bytes]:
        note = self.unfinished / _FINGERPRINT
        same = fingerprint and note.is_file() and note.read_text(encoding="utf-8") == fingerprint
        for path in list(self.unfinished.iterdir()):
            if path.is_dir():  # counters of a process that was killed
                shutil.rmtree(path)
            elif path.name.endswith(".half") or not (same or path.name in (_NEW_FOLDER, _LOCK)):
                path.unlink()
        note.write_text(fingerprint, encoding="utf-8")
        return {path.name: path.read_bytes() for path in self.unfinished.glob("*.json")}

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        # A name of its own for each process: the one that a lost worker's part is given to again may start
        # while the first still writes.
        path = self.unfinished / f"{name}.{os.getpid()}.half"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def keep(self, path: Path, name: str) -> None:
        os.replace(path, self.unfinished / name)

    def note(self, name: str, text: str) -> None:
        with self.scratch(name) as half:
            half.write_text(text, encoding="utf-8")
            os.replace(half, self.unfinished / name)

    def tars(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self.unfinished.glob("*.tar")}

    def complete(self, manifest: Manifest, rejected: str) -> None:
        # All is written before the earlier pack goes: from then on files are only renamed, which a full disk
        # does not stop. What breaks off in between leaves no manifest, and the records here go on from there.
        for name in (manifests.FILE, REJECTED):
            (self.unfinished / name).unlink(missing_ok=True)
        if rejected:
            self.note(REJECTED, rejected)
        stale = self._tars_of_earlier(manifest.name)
        manifests.write_manifest(self.unfinished, manifest)
        for path in (self.out / manifests.FILE, self.out / REJECTED, *stale):
            path.unlink(missing_ok=True)
        for name in (*(shard.url for shard in manifest.shards), *([REJECTED] if rejected else [])):
            os.replace(self.unfinished / name, self.out / name)
        os.replace(self.unfinished / manifests.FILE, self.out / manifests.FILE)
        self.clear()

    def clear(self) -> None:
        is_new = (self.unfinished / _NEW_FOLDER).exists()
        shutil.rmtree(self.unfinished, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # it is not empty
                self.out.rmdir()

    def _tars_of_earlier(self, name: str) -> set[Path]:
        ours = set(self.out.glob(f"{name}-" + "[0-9]" * 6 + ".tar"))
        try:
            shards = manifests.read_manifest(self.out).shards
        except DataError:
            return ours
        return ours | {self.out / shard.url for shard in shards if Path(shard.url).name == shard.url}


@dataclass(frozen=True)
class RemoteStore:
    """An address to which files can be written; tars are made in the temporary folder of each process.

    There is no renaming there: tars go to their place at once, and make no pack before their manifest comes.
    """

    out: str

    def held(self) -> AbstractContextManager[None]:
        return nullcontext()  # nothing can be locked there

    def begin(self, fingerprint: str) -> dict[str, bytes]:
        if manifests.FILE in address.sizes(self.out):
            raise DataError(
                f"{self.out}: holds a pack", None, "choose another --out, or remove the pack there first"
            )
        records = address.read_all(self._aside())
        if fingerprint and records.pop(_FINGERPRINT, b"").decode() == fingerprint:
            return records
        self.clear()
        self.note(_FINGERPRINT, fingerprint)
        return {}

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="spml-dist-") as folder:
            yield Path(folder) / name

    def keep(self, path: Path, name: str) -> None:
        address.store(path, address.join(self.out, name))

    def note(self, name: str, text: str) -> None:
        self._write(f"{UNFINISHED}/{name}", text)

    def tars(self) -> dict[str, int]:
        return {name: size for name, size in address.sizes(self.out).items() if name.endswith(".tar")}

    def complete(self, manifest: Manifest, rejected: str) -> None:
        self._remove_stale(manifest)
        if rejected:
            self._write(REJECTED, rejected)
        with self.scratch(manifests.FILE) as path:
            manifests.write_manifest(path.parent, manifest)
            self.keep(path, manifests.FILE)
        self.clear()

    def clear(self) -> None:
        address.remove(self._aside())

    def _remove_stale(self, manifest: Manifest) -> None:
        """What an interrupted pack of other options, which no record tells of any more, has left."""
        ours = re.compile(re.escape(manifest.name) + r"-[0-9]{6}\.tar")
        current = {shard.url for shard in manifest.shards}
        tars = {name for name in self.tars() if ours.fullmatch(name)}
        address.remove(self.out, (tars - current) | {REJECTED})

    def _aside(self) -> str:
        return address.join(self.out, UNFINISHED)

    def _write(self, name: str, text: str) -> None:
        with self.scratch("text") as path:
            path.write_text(text, encoding="utf-8")
            self.keep(path, name)


def output_store(out: str | Path) -> OutputStore:
    """The store of an --out. Raises DataError for a file, or an address that cannot be written to."""
    if not address.is_remote(out):
        nearest = next(path for path in (Path(out), *Path(out).parents) if os.path.exists(path))
        if not os.path.isdir(nearest):
            raise DataError(f"{nearest}: cannot be written", "a file", "give a folder as --out")
        return FolderStore(Path(out))
    address.require_writable(str(out))
    return RemoteStore(str(out))
