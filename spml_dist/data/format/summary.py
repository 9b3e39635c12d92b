"""A packed split in numbers: what `spml-dist pack` prints and writes as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from spml_dist.data.format.manifest import Manifest
from spml_dist.tables import facts, table


def summary(manifest: Manifest) -> dict[str, Any]:
    """The manifest's numbers as plain data: `labelled_share` of all pixels, and all of its counts beside."""
    counts = manifest.counts
    return {
        "name": manifest.name,
        "split": manifest.split,
        "labels": manifest.labels,
        "images": manifest.samples,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
        "labelled_share": sum(counts.pixels_labelled) / counts.pixels,
        "regions": manifest.regions,
        "rejected": manifest.rejected,
        "classes": list(manifest.classes),
        **asdict(counts),
    }


def summary_table(numbers: Mapping[str, Any]) -> str:
    """A summary in lines, with a row for each class where any class is labelled or tagged."""
    lines = {
        "split": numbers["split"],
        "labels": numbers["labels"],
        "images": f"{numbers['images']} ({numbers['images_unlabelled']} without labelled pixels)",
        "shards": f"{numbers['shards']} ({numbers['bytes'] / 1e6:.1f} MB)",
        "labelled pixels": f"{numbers['labelled_share']:.2%}",
        "regions": numbers["regions"],
    }
    if kinds := images_by_kind(numbers):
        lines["kinds"] = ", ".join(f"{kind} {images}" for kind, images in kinds.items())
    if contradicted := numbers["pixels_contradicted"]:
        lines["contradicted"] = f"{contradicted} pixels"
    if rejected := numbers["rejected"]:
        lines["rejected"] = f"{rejected}, listed in rejected.jsonl"
    columns = numbers["classes"], numbers["images_tagged"], numbers["pixels_labelled"]
    if not any((*columns[1], *columns[2])):
        return facts(lines)
    classes = table(("class", "images tagged", "labelled pixels"), zip(*columns, strict=True))
    return f"{facts(lines)}\n{classes}"


def images_by_kind(numbers: Mapping[str, Any]) -> dict[str, int]:
    """Images that have each kind of annotation, and those of none beside them, where there are kinds."""
    kinds, none = numbers["kinds"], numbers["images_of_no_kind"]
    return kinds | ({"none": none} if kinds and none else {})
