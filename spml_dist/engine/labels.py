"""What a training learns from, noted in its folder: RUN/labels.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spml_dist.config.method import Relations
from spml_dist.model.export import Network
from spml_dist.shards.hints import hints
from spml_dist.shards.manifest import Manifest, write_json

FILE = "labels.json"
_CAM = "spml-dist cam"
_TEACH = "teach by image similarity, and by feature affinity through the bank"
_WHERE = {"batch": "in the batch", "global": "through the bank"}
"""what hints of a pack say, of which a run knows more"""
_DESCRIBED = ("name", "split", "labels", "classes", "background", "samples", "regions", "rejected")


def write(folder: Path, manifest: Manifest, relations: Relations, network: Network) -> None:
    """Note what the manifest says of its samples and their annotations, with hints where labels are missing.

    relations, network: of the run, for which some hints have no meaning.
    A note that says the same already is left alone: MLflow is sent what has changed.
    """
    said = {name: getattr(manifest, name) for name in _DESCRIBED}
    said |= {"counts": asdict(manifest.counts), "hints": list(_hints(manifest, relations, network))}
    said = json.loads(json.dumps(said))
    if said != _read(folder / FILE):
        write_json(folder / FILE, said)


def _hints(manifest: Manifest, relations: Relations, network: Network) -> Iterator[str]:
    """Those that a run can use: it cannot learn by relations that weigh nothing, and CAM asks for no CAM."""
    for hint in hints(manifest):
        if network == "segmenter":
            yield hint.replace(_TEACH, _teach(relations))
        elif _CAM not in hint and _TEACH not in hint:
            yield hint


def _teach(relations: Relations) -> str:
    affinity = relations.feature_affinity
    ways = ["image similarity"] if relations.image_similarity.weight else []
    if affinity.weight and affinity.scope != "image":
        ways.append(f"feature affinity {_WHERE[affinity.scope]}")
    return f"teach by {', and by '.join(ways)}" if ways else "teach nothing"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
