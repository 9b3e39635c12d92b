"""The worth of weak labels: `python -m benchmarks.labels --gid15 DIR --ccp DIR --pennfudan DIR --out OUT`.

Trains gid15 and ccp with every kind of label and with a mixture of them, the same network, steps and seed,
one process without DeepSpeed, and evaluates on gid15's val and ccp's test split; each mean IoU also as a
share of that with masks. Tags and boxes pass through CAM first (`cam train`, `cam infer`). In the mixture a
fifth of the images each has scribbles, points, boxes, tags and nothing: every fifth of the split's list.

PennFudan's parts, one seed a part, follow with feature affinity off and over the image, the batch and the
bank. DIR are the unpacked archives in the folder layout of shards/README.md. The same command goes on where
it was broken off; OUT/labels.json, OUT/affinity.json and the tables hold what is there.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import training

SPLITS = {"gid15": "val", "ccp": "test", "pennfudan": "test"}
CONFIGS = {"gid15": "gid15_scribble.yaml", "ccp": "ccp_scribble.yaml", "pennfudan": "pennfudan_point.yaml"}
MIXTURE = ("scribble100", "points", "boxes", "tags", None)
KINDS = ("masks", "scribble100", "scribble30", "points", "points1", "boxes", "tags", "mixture")
LOCALISED = ("boxes", "tags", "mixture")
"""kinds that CAM labels"""

WAYS = ("classifier", "neighbours")
SCOPES = {
    "off": ("relations.feature_affinity.weight=0",),
    "image": ("relations.feature_affinity.weight=0.5", "relations.feature_affinity.scope=image"),
    "batch": ("relations.feature_affinity.weight=0.5", "relations.feature_affinity.scope=batch"),
    "global": (
        "relations.feature_affinity.weight=0.5",
        "relations.feature_affinity.scope=global",
        "bank.candidates=nearest+sampled",
    ),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labels", description=__doc__)
    for name in SPLITS:
        parser.add_argument(f"--{name}", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, help="packs, runs and the results")
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    folders = {name: folder for name in SPLITS if (folder := getattr(args, name))}
    for kind in KINDS:
        for name in (name for name in ("gid15", "ccp") if name in folders):
            _train(args.out, name, folders[name], kind, args.steps)
            _write(args.out, args.steps)
    for scope, words in SCOPES.items():
        if "pennfudan" in folders:
            _affinity(args.out, folders["pennfudan"], scope, words, args.steps)
            _write_affinity(args.out, args.steps)
    return 0


def _train(out: Path, name: str, folder: Path, kind: str, steps: int) -> None:
    held = training.pack(out, folder, SPLITS[name], f"{name}/held", "--labels", "masks")
    packed = training.pack(out, folder, "train", f"{name}/{kind}", *_labels(out, folder, name, kind))
    run = f"{name}_{kind}"
    if kind in LOCALISED:
        packed = _localised(out, name, run, packed, steps)
    data = {"train": packed, "val": held, "test": held}
    training.train(out, CONFIGS[name], run, steps, SPLITS[name], data, "bank.candidates=recent")


def _labels(out: Path, folder: Path, name: str, kind: str) -> Sequence[str]:
    if kind != "mixture":
        return ("--labels", kind)
    ids = (folder / "train.txt").read_text().split()
    dealt = {
        image_id: [which] if (which := MIXTURE[n % len(MIXTURE)]) else [] for n, image_id in enumerate(ids)
    }
    path = out / f"{name}_mixture.json"
    path.write_text(json.dumps(dealt, indent=0) + "\n")
    return ("--labels", ",".join(which for which in MIXTURE if which), "--labels-from", path.name)


def _localised(out: Path, name: str, run: str, packed: Path, steps: int) -> Path:
    """The pack with CAM's labels."""
    found = Path("data") / f"{packed.relative_to('data')}_cam"
    if not (out / found / "manifest.json").exists():
        words = (
            f"name={run}",
            f"data.train={packed}",
            f"cam.steps={steps}",
            *training.SMALL,
            *training.QUIET,
        )
        training.verb(out, "cam", "train", str(training.ROOT / "configs" / CONFIGS[name]), "--alone", *words)
        whole = ("--out", str(found), "--workers", str(os.cpu_count() or 1))
        training.verb(out, "cam", "infer", f"runs/{run}_cam", str(packed), *whole)
    return found


def _affinity(out: Path, folder: Path, scope: str, words: Sequence[str], steps: int) -> None:
    held = training.pack(out, folder, "test", "pennfudan/held", "--labels", "masks")
    keypoints = ("--labels", "points1", "--heat-maps", "points1")
    packed = training.pack(out, folder, "train", "pennfudan/points1", *keypoints)
    data = {"train": packed, "val": held, "test": held}
    training.train(out, CONFIGS["pennfudan"], f"pennfudan_{scope}", steps, "test", data, *words)


def _write(out: Path, steps: int) -> None:
    """A row a run, and the table with shares of full supervision."""
    rows = list(_rows(out, steps))
    whole = {row["set"]: row for row in rows if row["labels"] == "masks"}
    for row in rows:
        full = whole.get(row["set"])
        row["share"] = {way: 100 * row[way] / full[way] if full else None for way in WAYS}
    table = [("labels", "set", *WAYS, *(f"{way}, % of masks" for way in WAYS))]
    for row in rows:
        shares = (training.mean([row["share"][way]], 1) for way in WAYS)
        table.append((row["labels"], row["set"], *(f"{row[way]:.1f}" for way in WAYS), *shares))
    training.write(out, "labels", rows, table)


def _rows(out: Path, steps: int) -> Iterator[dict]:
    for name in ("gid15", "ccp"):
        for kind in KINDS:
            split = SPLITS[name]
            result = training.result(out, f"{name}_{kind}", split)
            if result and result["step"] == steps:
                yield {"set": f"{name} {split}", "labels": kind, "steps": steps, **_mious(result)}


def _write_affinity(out: Path, steps: int) -> None:
    results = {scope: training.result(out, f"pennfudan_{scope}", "test") for scope in SCOPES}
    rows = [
        {"affinity": scope, "steps": steps, **_mious(result)}
        for scope, result in results.items()
        if result and result["step"] == steps
    ]
    table = [("affinity", *WAYS), *((row["affinity"], *(f"{row[way]:.1f}" for way in WAYS)) for row in rows)]
    training.write(out, "affinity", rows, table)


def _mious(result: dict) -> dict[str, float]:
    return {way: 100 * result["readouts"][way]["miou"] for way in WAYS}


if __name__ == "__main__":
    raise SystemExit(main())
