"""A saved bank in numbers: its rows counted by class and age, and compared with its manifest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from spml_dist import tables
from spml_dist.bank.rows import ANNOTATED, PROPAGATED
from spml_dist.bank.snapshot import read_shards, verify_indexes
from spml_dist.bank.snapshot_folder import MANIFEST, RECENT_ROWS
from spml_dist.bank.snapshot_manifest import SnapshotManifest, read_manifest
from spml_dist.bank.statistics import AGES
from spml_dist.errors import RunError
from spml_dist.progress import progress_bar
from spml_dist.records import BankRows
from spml_dist.run_folder import LATEST, RunFolder


def inspect(path: Path, progress: bool = False) -> dict[str, Any]:
    """Numbers of a saved bank, as plain data for JSON.

    path: a run folder (its newest checkpoint is meant), a checkpoint, or a checkpoint's bank folder. Every
    file is read and compared with the manifest by its digest. Raises RunError for a place without a bank of
    the whole data set, and for a file that is missing or differs.
    """
    folder = bank_folder(path)
    manifest = read_manifest(folder)
    parts = read_shards(folder)
    bar = progress_bar(parts, "reading", len(manifest.files), unit="files", delay=2, shown=progress)
    numbers = {"folder": str(folder)} | _count_rows(manifest, bar)
    verify_indexes(folder)
    return numbers


def table(numbers: dict[str, Any]) -> str:
    """What `inspect` returns, for people."""
    rows, capacity = numbers["rows"], numbers["capacity"]
    head = f"{numbers['folder']}: " + (f"newest row of step {numbers['step']}" if rows else "no rows")
    facts = {"rows": f"{rows:,} of {capacity:,}", "images": f"{numbers['images']:,}"}
    if rows:
        per, shares = numbers["rows_a_partition"], numbers["age_share_below"].items()
        facts |= {
            "partitions": f"{numbers['partitions_with_rows']} of {numbers['partitions']} with rows: "
            f"{per['min']:,} to {per['max']:,} each, median {per['median']:,g}",
            "on disk": f"{numbers['bytes'] / 1e6:,.1f} MB, {numbers['bytes_per_row']:.0f} bytes a row: "
            f"{numbers['dim']} × {numbers['storage']} and the rest",
            "age in steps": f"mean {numbers['age_mean']:.1f}; "
            + ", ".join(f"below {age}: {100 * share:.0f} %" for age, share in shares),
        }
    facts["digest"] = f"{numbers['digest']}, counted again from the files"
    classes = [
        (each["name"], f"{each['annotated']:,}", f"{each['propagated']:,}") for each in numbers["classes"]
    ]
    classes.append(("unlabelled", f"{numbers['unlabelled']:,}", ""))
    by_class = tables.table(("class", "annotated", "propagated"), classes)
    return "\n".join([head, "", tables.facts(facts), "", by_class])


def bank_folder(path: Path) -> Path:
    """The bank folder that is meant by a run folder, a checkpoint or itself.

    Raises RunError for a place without a bank of the whole data set.
    """
    if not path.is_dir():
        raise RunError(f"{path}: no such folder", None, "give the folder that `spml-dist train` wrote")
    latest = RunFolder(path).checkpoints / LATEST
    if latest.is_file():
        path = latest.parent / latest.read_text().strip()
    folder = path / "bank" if (path / "bank").is_dir() else path
    if (folder / RECENT_ROWS).is_file():
        raise RunError(
            f"{folder} remembers the last steps alone",
            "bank.candidates recent",
            "give a run with any other bank.candidates",
        )
    if not (folder / MANIFEST).is_file():
        remedy = "give a run folder with a checkpoint, a checkpoint, or its bank folder"
        raise RunError(f"{path} holds no saved bank", None, remedy)
    return folder


def _count_rows(manifest: SnapshotManifest, parts: Iterable[BankRows]) -> dict[str, Any]:
    """Everything that is counted from the rows, beside what the manifest has."""
    names = manifest.classes
    by_source = np.zeros((3, len(names) + 1), np.int64)  # the last class is none
    younger, total_age, images = np.zeros(len(AGES), np.int64), 0, 0
    for part in parts:
        age = manifest.step - part.step.numpy()
        # A label of -1, unlabelled, counts in the last column.
        np.add.at(by_source, (part.source.numpy(), part.label.numpy()), 1)
        younger += (age[:, None] < AGES).sum(axis=0)
        total_age += int(age.sum())
        images += len(part.image.unique())
    counts = zip(names, by_source[ANNOTATED, :-1].tolist(), by_source[PROPAGATED, :-1].tolist(), strict=True)
    return {
        **_shape(manifest),
        "images": images,
        "classes": [{"name": name, "annotated": some, "propagated": more} for name, some, more in counts],
        "unlabelled": int(by_source[:, -1].sum()),
        "age_mean": total_age / manifest.rows if manifest.rows else None,
        "age_share_below": dict(zip(map(str, AGES), (younger / max(1, manifest.rows)).tolist(), strict=True)),
    }


def _shape(manifest: SnapshotManifest) -> dict[str, Any]:
    """What the manifest says, which every file was compared with."""
    rows = [file.rows for file in manifest.files.values()]
    size = sum(file.bytes for file in (*manifest.files.values(), *manifest.indexes.values()))
    return {
        "step": manifest.step,
        "rows": manifest.rows,
        "capacity": manifest.capacity,
        "partitions": manifest.shards,
        "partitions_with_rows": len(rows),
        "rows_a_partition": {"min": min(rows), "median": median(rows), "max": max(rows)} if rows else None,
        "bytes": size,
        "bytes_per_row": size / manifest.rows if manifest.rows else None,
        "storage": manifest.storage,
        "dim": manifest.dim,
        "digest": manifest.digest,
    }
