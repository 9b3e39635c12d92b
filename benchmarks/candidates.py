"""What the bank's candidates are worth: `python -m benchmarks.candidates --gid15 DIR --ccp DIR --out OUT`.

Trains gid15 (points1, scribble30) and ccp (points1) with `recent`, `nearest`, `nearest+sampled` and `exact`,
the same steps and three seeds each, one process without DeepSpeed, and evaluates every run on gid15's val and
ccp's test split. DIR are the unpacked archives in the folder layout of shards/README.md. The network is that
of the shipped configurations on smaller batches, 4 crops of 96 pixels; the bank of `exact` holds 10,000 rows,
that of the others every segment.

Runs that OUT already holds are not repeated, and a broken-off one goes on from its checkpoint: the same
command goes on. After every run OUT/candidates.json and the table hold what is there. `cpu_s` is the
processor time of the training process, start included, by its steps: beside other work it stays the same.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

from benchmarks import training

MODES = ("recent", "nearest", "nearest+sampled", "exact")
SEEDS = (235, 236, 237)
SMALL_BANK = ("bank.capacity=10000", "bank.partitions=8")
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
    rows = []
    for seed, (name, folder, labels, split), mode in product(SEEDS, cases, MODES):
        parts = dict.fromkeys(("train", split))
        # The list of tags belongs to what is known: a seed a class says as much.
        packs = {
            part: training.pack(
                args.out, folder, part, f"{name}_{labels}/{part}", "--labels", f"{labels},tags"
            )
            for part in parts
        }
        rows.append(trained(name, labels, split, packs, mode, seed, args.steps, args.out))
        write(args.out, rows)
    return 0


def trained(
    name: str, labels: str, split: str, packs: dict[str, Path], mode: str, seed: int, steps: int, out: Path
) -> dict:
    """Train and evaluate one run, or what is left of it; its row."""
    run = f"{name}_{labels}_{mode.replace('+', '_')}_{seed}"
    data = {"train": packs["train"], "val": packs[split], "test": packs[split]}
    bank = (*BANK, *(SMALL_BANK if mode == "exact" else ()))
    words = (f"seed={seed}", f"bank.candidates={mode}", *bank)
    training.train(out, f"{name}_scribble.yaml", run, steps, split, data, *words)
    readouts = training.result(out, run, split)["readouts"]
    return {
        "set": f"{name} {split}",
        "labels": labels,
        "candidates": mode,
        "seed": seed,
        "steps": steps,
        **{way: 100 * readouts[way]["miou"] for way in ("classifier", "neighbours")},
        "cpu_s": training.cpu_seconds(out, run) / steps,
        "purity": training.logged(out, run, "bank/purity", steps // 2),
        "coverage": training.logged(out, run, "bank/coverage_annotation/bank", steps // 2),
        "drift": training.logged(out, run, "bank/drift_cosine", steps // 2),
    }


def write(out: Path, rows: list[dict]) -> None:
    """A row a run, and the table of means and deviations over the seeds."""
    table = [("set", "labels", "candidates", "seeds", *COLUMNS)]
    for key in dict.fromkeys((row["set"], row["labels"], row["candidates"]) for row in rows):
        same = [row for row in rows if (row["set"], row["labels"], row["candidates"]) == key]
        table.append(
            (*key, str(len(same)), *(training.mean(row[column] for row in same) for column in COLUMNS))
        )
    training.write(out, "candidates", rows, table)


if __name__ == "__main__":
    raise SystemExit(main())
