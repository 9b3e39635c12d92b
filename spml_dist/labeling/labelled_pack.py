"""A pack with what labelers add to another: written once, gone on with where it was cut off, measured."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spml_dist import __version__
from spml_dist.data.format.compatibility import first_difference
from spml_dist.data.format.manifest import FILE, WITH_CONFIDENCE, Manifest, read_manifest
from spml_dist.data.pack.pack import PackDescription, pack_parts
from spml_dist.errors import DataError
from spml_dist.files import address
from spml_dist.labeling import label_quality, pack_note
from spml_dist.labeling.labeler import Labeler
from spml_dist.labeling.labelled_parts import LabelledParts, PackParts
from spml_dist.records import LABELERS


@dataclass(frozen=True)
class LabelledPack:
    """A pack that is to hold what labelers add to the samples of another."""

    parts: PackParts
    """the pack that is read"""
    out: str
    """folder or address"""
    kinds: tuple[str, ...]
    """the labelers' names"""
    file: str
    """name of the note beside the pack"""
    deciding: Any
    """plain data on which the labels depend, besides the samples and this release"""

    def finished(self) -> dict[str, Any] | None:
        """The note of the pack, if this very work has made and measured it."""
        return pack_note.finished(self.out, self.file, self._source())

    def write(self, label: Labeler, note: dict[str, Any], workers: int) -> dict[str, Any]:
        """Write the pack, measure its labels, and return what is then in the note beside it.

        note: what it says besides; workers: processes side by side. The same call goes on where it was
        interrupted.
        """
        sizes = [shard.samples for shard in self.parts.manifest.shards]
        labelled, source = LabelledParts(self.parts, label), self._source()
        written = pack_note.left_unmeasured(self.out, self.file, source) or pack_parts(
            labelled, sizes, self.out, self._description(), workers=workers, fingerprint=self._fingerprint()
        )
        made = {
            "made_by": source,
            "manifest": pack_note.digest(asdict(written)),
            "rejected": written.rejected,
        }
        # Twice: a call that was cut off while it measured finds its pack and measures alone.
        pack_note.write(self.out, self.file, made)
        pack_note.remove_other(self.out, self.file)
        result = note | made | label_quality.measure(self.out, *self.kinds, cache=self.parts.cache)
        pack_note.write(self.out, self.file, result)
        return result

    def _source(self) -> str:
        return pack_note.digest([self._fingerprint(), asdict(self._description())])

    def _fingerprint(self) -> str:
        tars = [shard.sha256 for shard in self.parts.manifest.shards]
        return json.dumps([__version__, self.deciding, tars], sort_keys=True)

    def _description(self) -> PackDescription:
        manifest = self.parts.manifest
        return PackDescription(
            "-".join((manifest.name, *self.kinds)),
            manifest.split,
            ",".join((manifest.labels, *self.kinds)),
            manifest.classes,
            manifest.background,
            manifest.regions,
            WITH_CONFIDENCE,
        )


def require_place(shards: str, out: str) -> None:
    """Raise DataError for an OUT that is the pack which is read, lies in it, or is one of people's."""
    if address.is_remote(shards) or address.is_remote(out):
        same = shards.rstrip("/") == out.rstrip("/")
        inside = out.startswith(f"{shards.rstrip('/')}/")
    else:
        source, place = Path(shards).resolve(), Path(out).resolve()
        same, inside = source == place, source in place.parents
    if same:
        raise DataError(f"{out}: the pack that is read", None, "give another --out")
    if inside:
        raise DataError(f"{out}: lies in the pack that is read", None, "give another --out")
    if not address.is_remote(out) and (Path(out) / FILE).exists():
        _require_by_labeler(out, read_manifest(out))


def _require_by_labeler(out: str, there: Manifest) -> None:
    """Labels of a labeler are made again by its command; those of people are not."""
    if not set(LABELERS) & set(there.labels.split(",")):
        what = f"{out}: holds a pack that no labeler made, which would be lost"
        raise DataError(what, there.name, "give another --out, or remove it")


def require_classes(shards: str, manifest: Manifest, run: Path, info: dict[str, Any], remedy: str) -> None:
    """Raise DataError, with the first difference, unless a pack has the classes that a network knows."""
    difference = first_difference(manifest.classes, manifest.background, info["classes"], info["background"])
    if difference:
        raise DataError(f"{shards}: classes are not those that {run} was trained for", difference, remedy)
