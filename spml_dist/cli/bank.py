"""`spml-dist bank inspect`: what a saved bank holds, counted from its rows."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from spml_dist.cli.arguments import add_verb
from spml_dist.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spml_dist.bank.snapshot_manifest import SnapshotManifest
    from spml_dist.records import BankRows

EXAMPLES = """\
examples:
  spml-dist bank inspect runs/quickstart                            # of the newest checkpoint
  spml-dist bank inspect runs/quickstart/checkpoints/step_000400
  spml-dist bank inspect runs/quickstart --json bank.json

Every file is read and compared with the manifest by its digest: one that differs is named, with status 2.
"""


def add(subparsers: argparse._SubParsersAction) -> None:
    bank = add_verb(
        subparsers,
        "bank",
        "look into the bank of segments of a run",
        "Look into the bank of segments that a training saved.",
        EXAMPLES,
    )
    whats = bank.add_subparsers(metavar="WHAT", required=True, dest="what", title="what")
    parser = add_verb(
        whats,
        "inspect",
        "count its rows by class and age, and check them",
        "Count the rows of a saved bank by class and by age, and compare them with its manifest.",
        EXAMPLES,
    )
    parser.add_argument(
        "path", metavar="PATH", type=Path, help="run folder, checkpoint, or a checkpoint's bank folder"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the numbers as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    folder = _bank(args.path)
    from tqdm import tqdm

    from spml_dist.bank.snapshot import read_shards, verify_indexes
    from spml_dist.bank.snapshot_manifest import read_manifest
    from spml_dist.data.format.manifest import write_json

    manifest = read_manifest(folder)
    pause = 0.2 if sys.stderr.isatty() else 10  # seconds; a log file gets few lines
    shards = tqdm(read_shards(folder), "reading", len(manifest.files), mininterval=pause, delay=2)
    told = {"folder": str(folder)} | _counted(manifest, shards)
    verify_indexes(folder)
    print(_table(told))
    if args.json is not None:
        write_json(args.json, told)
    return 0


def _bank(path: Path) -> Path:
    """The bank folder that is meant by a run folder, a checkpoint or itself."""
    if not path.is_dir():
        raise RunError(f"{path}: no such folder", None, "give the folder that `spml-dist train` wrote")
    latest = path / "checkpoints" / "latest"
    if latest.is_file():
        path = latest.parent / latest.read_text().strip()
    folder = path / "bank" if (path / "bank").is_dir() else path
    if (folder / "rows.safetensors").is_file():
        raise RunError(
            f"{folder} remembers the last steps alone",
            "bank.candidates recent",
            "give a run with any other bank.candidates",
        )
    if not (folder / "manifest.json").is_file():
        remedy = "give a run folder with a checkpoint, a checkpoint, or its bank folder"
        raise RunError(f"{path} holds no saved bank", None, remedy)
    return folder


def _counted(manifest: SnapshotManifest, shards: Iterable[BankRows]) -> dict[str, Any]:
    """Everything that is printed, from all rows."""
    import numpy as np

    from spml_dist.bank.rows import ANNOTATED, PROPAGATED
    from spml_dist.bank.statistics import AGES

    names = manifest.classes
    by_source = np.zeros((3, len(names) + 1), np.int64)  # the last class is none
    younger, total_age, images = np.zeros(len(AGES), np.int64), 0, 0
    for part in shards:
        age = manifest.step - part.step.numpy()
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
    held = [file.rows for file in manifest.files.values()]
    size = sum(file.bytes for file in (*manifest.files.values(), *manifest.indexes.values()))
    return {
        "step": manifest.step,
        "rows": manifest.rows,
        "capacity": manifest.capacity,
        "shards": manifest.shards,
        "shards_with_rows": len(held),
        "rows_a_shard": {"min": min(held), "median": median(held), "max": max(held)} if held else None,
        "bytes": size,
        "bytes_per_row": size / manifest.rows if manifest.rows else None,
        "storage": manifest.storage,
        "dim": manifest.dim,
        "digest": manifest.digest,
    }


def _table(told: dict[str, Any]) -> str:
    head = f"{told['folder']}: " + ("no rows" if not told["rows"] else f"newest row of step {told['step']}")
    facts = {"rows": f"{told['rows']:,} of {told['capacity']:,}", "images": f"{told['images']:,}"}
    if told["rows"]:
        per, shares = told["rows_a_shard"], told["age_share_below"].items()
        facts |= {
            "virtual shards": f"{told['shards_with_rows']} of {told['shards']} with rows: {per['min']:,} to "
            f"{per['max']:,} each, median {per['median']:,g}",
            "on disk": f"{told['bytes'] / 1e6:,.1f} MB, {told['bytes_per_row']:.0f} bytes a row: "
            f"{told['dim']} × {told['storage']} and the rest",
            "age in steps": f"mean {told['age_mean']:.1f}; "
            + ", ".join(f"below {age}: {100 * share:.0f} %" for age, share in shares),
        }
    facts["digest"] = f"{told['digest']}, counted again from the files"
    lines = [head, "", *(f"{name:<16}{value}" for name, value in facts.items()), ""]
    width = max(len(name) for name in ("unlabelled", *(each["name"] for each in told["classes"])))
    lines.append(f"{'class':<{width}}  {'annotated':>10}  {'propagated':>10}")
    for each in told["classes"]:
        lines.append(f"{each['name']:<{width}}  {each['annotated']:>10,}  {each['propagated']:>10,}")
    lines.append(f"{'unlabelled':<{width}}  {told['unlabelled']:>10,}")
    return "\n".join(lines)
