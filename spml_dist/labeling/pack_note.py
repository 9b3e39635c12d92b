"""OUT/seeds.json of a pack with seeds: what they were made by and from, and how good they are.

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

FILE = "seeds.json"
MEASURED = "all"
"""a key that the note has once the seeds are measured"""


def write(out: str, note: dict[str, Any]) -> None:
    """Write the note, to a folder or an address."""
    place = address.join(out, FILE)
    if not address.is_remote(place):
        write_json(Path(place), note)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / FILE, note)
        address.store(Path(folder) / FILE, place)


def left_unmeasured(out: str, source: str) -> Manifest | None:
    """The manifest of OUT if the same work made the pack that lies there and was cut off before its numbers.

    source: digest of all that decides what the pack is.
    """
    note = _read(out)
    if note.get("made_by") != source or MEASURED in note:
        return None
    try:
        manifest = read_manifest(out)
    except DataError:
        return None
    return manifest if note.get("manifest") == digest(asdict(manifest)) else None


def digest(value: Any) -> str:
    """sha256 of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read(out: str) -> dict[str, Any]:
    place = address.join(out, FILE)
    try:
        if address.is_remote(place):
            address.require_writable(out)
            text = address.read(place, address.RETRY_SECONDS) if FILE in address.sizes(out) else b"{}"
        else:
            text = Path(place).read_bytes()
        note = json.loads(text)
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
