"""Where a pack is written: a folder, or an address. What is unfinished lies beside it, in `.packing`.

Both kinds of place give the same answers:

    begin(fingerprint) -> {name: content}   records that an interrupted pack of this fingerprint has left
    scratch(name)                           context: a path for a tar in the making, gone afterwards
    keep(path, name)                        take over a finished tar
    note(name, text)                        leave a record; it comes after what it speaks of
    tars() -> {name: bytes}                 sizes of the tars that were taken over
    complete(manifest, rejected)            make the pack whole; the manifest comes last
    clear()                                 forget what is unfinished
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from spml_dist.data.format import manifest as manifests
from spml_dist.data.format.manifest import Manifest
from spml_dist.errors import DataError
from spml_dist.files import address

ASIDE = ".packing"
REJECTED = "rejected.jsonl"
_FINGERPRINT, _MADE = "fingerprint", "made"
"""what an unfinished pack is made from; a file that is there if the pack made its folder"""


@dataclass(frozen=True)
class Folder:
    """A folder of this machine, or one that several share. An earlier pack stays until `complete`."""

    out: Path

    @property
    def aside(self) -> Path:
        """Where everything lies until the pack is complete."""
        return self.out / ASIDE

    def begin(self, fingerprint: str) -> dict[str, bytes]:
        told = self.aside / _FINGERPRINT
        if not (fingerprint and told.is_file() and told.read_text(encoding="utf-8") == fingerprint):
            self.clear()
            made = not self.out.exists()
            self.aside.mkdir(parents=True)
            if made:
                (self.aside / _MADE).touch()
            told.write_text(fingerprint, encoding="utf-8")
        for half in self.aside.glob("*.half"):
            half.unlink()
        return {path.name: path.read_bytes() for path in self.aside.glob("*.json")}

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        path = self.aside / f"{name}.{os.getpid()}.half"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def keep(self, path: Path, name: str) -> None:
        os.replace(path, self.aside / name)

    def note(self, name: str, text: str) -> None:
        with self.scratch(name) as half:
            half.write_text(text, encoding="utf-8")
            os.replace(half, self.aside / name)

    def tars(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self.aside.glob("*.tar")}

    def complete(self, manifest: Manifest, rejected: str) -> None:
        # All is written before the earlier pack goes: from then on files are only renamed.
        for name in (manifests.FILE, REJECTED):
            (self.aside / name).unlink(missing_ok=True)
        if rejected:
            self.note(REJECTED, rejected)
        stale = self._tars_of_earlier(manifest.name)
        manifests.write_manifest(self.aside, manifest)
        for path in (self.out / manifests.FILE, self.out / REJECTED, *stale):
            path.unlink(missing_ok=True)
        for name in (*(shard.url for shard in manifest.shards), *([REJECTED] if rejected else [])):
            os.replace(self.aside / name, self.out / name)
        os.replace(self.aside / manifests.FILE, self.out / manifests.FILE)
        self.clear()

    def clear(self) -> None:
        made = (self.aside / _MADE).exists()
        shutil.rmtree(self.aside, ignore_errors=True)
        if made:
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
class Store:
    """An address to which files can be written; tars are made in the temporary folder of each process."""

    out: str

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
        with tempfile.TemporaryDirectory(prefix="spml-dist-") as aside:
            yield Path(aside) / name

    def keep(self, path: Path, name: str) -> None:
        address.store(path, address.join(self.out, name))

    def note(self, name: str, text: str) -> None:
        self._write(f"{ASIDE}/{name}", text)

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
        kept = {shard.url for shard in manifest.shards}
        tars = {name for name in self.tars() if ours.fullmatch(name)}
        address.remove(self.out, (tars - kept) | {REJECTED})

    def _aside(self) -> str:
        return address.join(self.out, ASIDE)

    def _write(self, name: str, text: str) -> None:
        with self.scratch("text") as path:
            path.write_text(text, encoding="utf-8")
            self.keep(path, name)


Place = Folder | Store


def place_of(out: str | Path) -> Place:
    """The place of an --out. Raises DataError for a file, or an address that cannot be written to."""
    if not address.is_remote(out):
        there = next(path for path in (Path(out), *Path(out).parents) if os.path.exists(path))
        if not os.path.isdir(there):
            raise DataError(f"{there}: cannot be written", "a file", "give a folder as --out")
        return Folder(Path(out))
    address.require_writable(str(out))
    return Store(str(out))
