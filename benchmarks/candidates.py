"""What the bank's candidates are worth: `python -m benchmarks.candidates --gid15 DIR --ccp DIR --out OUT`.

Trains gid15 (points1, scribble30) and ccp (points1) with `recent`, `nearest`, `nearest+sampled` and `exact`,
the same steps and three seeds each, one process without DeepSpeed, and evaluates every run on gid15's val and
ccp's test split. DIR are the unpacked archives in the folder layout of shards/README.md. The network is that
of the shipped configurations on smaller batches, 4 crops of 96 pixels, since 36 runs have to fit into a
day; for the same reason the bank of `exact` holds 10,000 rows, that of the others every segment.

Runs that OUT already holds are not repeated, and a broken-off one goes on from its checkpoint: the same
command goes on. After every run OUT/candidates.json and the table hold what is there. `cpu_s` is the
processor time of the training process, start included, by its steps: beside other work it stays the same.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODES = ("recent", "nearest", "nearest+sampled", "exact")
SEEDS = (235, 236, 237)
SMALL = (
    "stream.batch=4",
    "stream.crop=96",
    "optimizer.lr=0.01",
    "schedule.steps={steps}",
    "engine.workers=1",
)
QUIET = ("tracking.previews=0", "tracking.every=50", "checkpoint.keep=1", "evaluation.pictures=0")
SMALL_BANK = ("bank.capacity=10000", "bank.shards=8")
BANK = (
    "bank.capacity=100000",
    "bank.queries=128",
    "bank.neighbours=8",
    "bank.max_candidates=1024",
    "bank.sampled=1024",
)
COLUMNS = ("classifier", "neighbours", "cpu_s", "purity", "coverage", "drift")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.candidates", description=__doc__)
    parser.add_argument("--gid15", type=Path, required=True, metavar="DIR")
    parser.add_argument("--ccp", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, help="packs, runs and the results")
    parser.add_argument("--steps", type=int, default=2000)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    cases = (
        ("gid15", args.gid15, "points1", "val"),
        ("ccp", args.ccp, "points1", "test"),
        ("gid15", args.gid15, "scribble30", "val"),
    )
    for seed, (name, folder, labels, split), mode in product(SEEDS, cases, MODES):
        pack(name, folder, labels, split, args.out)
        trained(name, labels, split, mode, seed, args.steps, args.out)
        write(args.out, args.steps)
    return 0


def pack(name: str, folder: Path, labels: str, split: str, out: Path) -> None:
    for part in ("train", split):
        packed = out / "data" / f"{name}_{labels}" / part
        if not (packed / "manifest.json").exists():
            words = ("--labels", labels, "--split", part, "--out", str(packed))
            _run(out, "pack", "folder", str(folder.resolve()), *words)


def trained(name: str, labels: str, split: str, mode: str, seed: int, steps: int, out: Path) -> None:
    """Train and evaluate one run, or what is left of it."""
    run = f"{name}_{labels}_{mode.replace('+', '_')}_{seed}"
    result = out / "runs" / run / ("result.json" if split == "val" else f"result_{split}.json")
    if result.exists() and json.loads(result.read_text())["step"] == steps:
        return
    data = f"data/{name}_{labels}"
    words = [f"name={run}", f"seed={seed}", f"data.train={data}/train", f"bank.candidates={mode}"]
    words += [f"data.{part}={data}/{split}" for part in ("val", "test")]
    words += [word.format(steps=steps) for word in (*SMALL, *QUIET, *BANK)]
    words += SMALL_BANK if mode == "exact" else ()
    spent = _run(out, "train", str(ROOT / "configs" / f"{name}_scribble.yaml"), "--alone", *words)
    with (out / "runs" / run / "cpu.txt").open("a") as file:
        file.write(f"{spent}\n")
    _run(out, "evaluate", f"runs/{run}", "--split", split)


def write(out: Path, steps: int) -> None:
    """OUT/candidates.json, a row a run, and the table of means and deviations over the seeds."""
    rows = [row for folder in sorted((out / "runs").iterdir()) if (row := _row(folder, steps))]
    (out / "candidates.json").write_text(json.dumps(rows, indent=2) + "\n")
    lines = ["| set | labels | candidates | seeds | " + " | ".join(COLUMNS) + " |"]
    lines.append("|---|---|---|---:|" + "---:|" * len(COLUMNS))
    for key in dict.fromkeys((row["set"], row["labels"], row["candidates"]) for row in rows):
        same = [row for row in rows if (row["set"], row["labels"], row["candidates"]) == key]
        cells = [_mean([row[column] for row in same]) for column in COLUMNS]
        lines.append(f"| {' | '.join(key)} | {len(same)} | {' | '.join(cells)} |")
    (out / "candidates.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


def _row(folder: Path, steps: int) -> dict | None:
    results = sorted(folder.glob("result*.json"))
    if not results:
        return None
    result = json.loads(results[0].read_text())
    if result["step"] != steps:
        return None
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    later = [entry for entry in entries if entry["step"] > steps // 2]
    name, labels, mode, seed = _parts(folder.name)
    return {
        "set": f"{name} {result['split']}",
        "labels": labels,
        "candidates": mode,
        "seed": seed,
        **{way: 100 * result["readouts"][way]["miou"] for way in ("classifier", "neighbours")},
        "cpu_s": sum(map(float, (folder / "cpu.txt").read_text().split())) / steps,
        "purity": _of(later, "bank/purity"),
        "coverage": _of(later, "bank/coverage_annotation/bank"),
        "drift": _of(later, "bank/drift_cosine"),
    }


def _parts(run: str) -> tuple[str, str, str, int]:
    name, labels, *mode, seed = run.split("_")
    return name, labels, "+".join(mode), int(seed)


def _of(entries: list[dict], key: str) -> float | None:
    values = [entry[key] for entry in entries if key in entry]
    return statistics.mean(values) if values else None


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.2f}{spread}"


def _run(out: Path, *words: str) -> float:
    """Run a verb; its processor time in seconds."""
    print("spml-dist", *words, file=sys.stderr, flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (out / "log.txt").open("a") as log:
        subprocess.run(
            [sys.executable, "-m", "spml_dist", *words],
            cwd=out,
            env=environment,
            check=True,
            stdout=log,
            stderr=log,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
