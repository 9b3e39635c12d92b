"""What a training learns from, noted in its folder: RUN/labels.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spml_dist.shards.hints import hints
from spml_dist.shards.manifest import Manifest, write_json

FILE = "labels.json"
_DESCRIBED = ("name", "split", "labels", "classes", "background", "samples", "regions", "rejected")


def write(folder: Path, manifest: Manifest) -> None:
    """Note what the manifest says of its samples and their annotations, with hints where labels are missing.

    A note that says the same already is left alone: MLflow is sent what has changed.
    """
    said = {name: getattr(manifest, name) for name in _DESCRIBED}
    said |= {"counts": asdict(manifest.counts), "hints": hints(manifest)}
    said = json.loads(json.dumps(said))
    if said != _read(folder / FILE):
        write_json(folder / FILE, said)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
