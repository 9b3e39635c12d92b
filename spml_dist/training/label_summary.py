"""What a training learns from, noted in its folder: RUN/labels.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spml_dist.config.method_models import RelationsConfig
from spml_dist.data.format.diagnose import TEACH, hints
from spml_dist.data.format.manifest import Manifest
from spml_dist.files.write import write_json
from spml_dist.model.export import Network
from spml_dist.run_folder import RunFolder

_CAM = "spml-dist cam"
_WHERE = {"batch": "in the batch", "global": "through the bank"}
_DESCRIBED = ("name", "split", "labels", "classes", "background", "samples", "regions", "rejected")


def write(folder: Path, manifest: Manifest, relations: RelationsConfig, network: Network) -> None:
    """Note what the manifest says of its samples and their annotations, with hints where labels are missing.

    relations, network: of the run, for which some hints have no meaning.
    A note that says the same already is left alone: MLflow is sent what has changed.
    """
    note: dict[str, Any] = {name: getattr(manifest, name) for name in _DESCRIBED}
    note |= {"network": network, "counts": asdict(manifest.counts)}
    note |= {"hints": list(_hints(manifest, relations, network))}
    note = json.loads(json.dumps(note))  # tuples become lists, as they are in the file
    path = RunFolder(folder).labels
    if note != _read(path):
        write_json(path, note)


def _hints(manifest: Manifest, relations: RelationsConfig, network: Network) -> Iterator[str]:
    """Those that a run can use: it cannot learn by relations that weigh nothing, and CAM asks for no CAM."""
    asked = relations.cooccurrence
    ignored = asked.ignore_classes if asked.weight else range(len(manifest.classes))
    for hint in hints(manifest, training=True, ignored=ignored):
        if network == "segmenter":
            yield hint.replace(TEACH, _teach(relations))
        elif _CAM not in hint and TEACH not in hint:
            yield hint


def _teach(relations: RelationsConfig) -> str:
    affinity = relations.feature_affinity
    ways = ["by image similarity"] if relations.image_similarity.weight else []
    if affinity.weight and affinity.scope != "image":
        ways.append(f"by feature affinity {_WHERE[affinity.scope]}")
    if relations.cooccurrence.weight:
        ways.append("by co-occurrence where their tags are known")
    *others, last = ways or ["nothing"]
    return "teach " + " and ".join(filter(None, (", ".join(others), last)))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
