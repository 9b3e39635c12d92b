"""What lies beside a labelled pack: what labelled it and from what, and how good its labels are.

It is written twice: without numbers as soon as the pack is complete, and with them once they are measured. So
a command that was killed while it measured finds what it had made.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spml_dist.data.format.manifest import Manifest, read_manifest
from spml_dist.errors import DataError
from spml_dist.files import address
from spml_dist.files.write import write_json

SEEDS = "seeds.json"
"""the note of a pack of `spml-dist cam infer`"""
LABELS = "labeling.json"
"""that of one of `spml-dist label`"""
MEASURED = "all"
"""a key that a note has once the labels are measured"""


def write(out: str, file: str, note: dict[str, Any]) -> None:
    """Write the note, to a folder or an address."""
    place = address.join(out, file)
    if not address.is_remote(place):
        write_json(Path(place), note, sort_keys=False)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / file, note, sort_keys=False)
        address.store(Path(folder) / file, place)


def remove_other(out: str, file: str) -> None:
    """Take away the note of a pack of another kind that lay in this folder before."""
    if not address.is_remote(out):
        for name in {SEEDS, LABELS} - {file}:
            (Path(out) / name).unlink(missing_ok=True)


def left_unmeasured(out: str, file: str, source: str) -> Manifest | None:
    """The manifest of OUT if the same work made the pack that lies there and was cut off before its numbers.

    source: digest of all that decides what the pack is.
    """
    note = _read(out, file)
    return None if MEASURED in note else _made(out, note, source)


def finished(out: str, file: str, source: str) -> dict[str, Any] | None:
    """The note of OUT if the same work made the pack that lies there, and measured it."""
    note = _read(out, file)
    return note if MEASURED in note and _made(out, note, source) else None


def digest(value: Any) -> str:
    """sha256 of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _made(out: str, note: dict[str, Any], source: str) -> Manifest | None:
    if note.get("made_by") != source:
        return None
    try:
        manifest = read_manifest(out)
    except DataError:
        return None
    return manifest if note.get("manifest") == digest(asdict(manifest)) else None


def _read(out: str, file: str) -> dict[str, Any]:
    place = address.join(out, file)
    try:
        if address.is_remote(place):
            address.require_writable(out)
            text = address.read(place, address.RETRY_SECONDS) if file in address.sizes(out) else b"{}"
        else:
            text = Path(place).read_bytes()
        note = json.loads(text)
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
