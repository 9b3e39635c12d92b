"""What the bank's options are worth: `SPML_DATA=DIR python -m benchmarks.bank_options --out OUT`.

Trains gid15 (scribble30 and tags) with the bank as configs/gid15_scribble.yaml has it, and with one option
changed at a time, the same steps and seeds each, one process without DeepSpeed, and evaluates every run on
gid15's val split. DIR/gid15 is the unpacked archive in the folder layout of shards/README.md. The network is
that of the configuration on smaller batches, 4 crops of 96 pixels: an image comes back every 132 steps.

Runs that OUT already holds are not repeated, and a broken-off one goes on from its checkpoint: the same
command goes on. After every run OUT/bank_options.json and the table hold what is there. `cpu_s` is the
processor time of the training process, start included, by its steps; `drift` and `purity` are means of what
the second half of the run logged.
"""

from __future__ import annotations

import argparse
import os
from itertools import product
from pathlib import Path

from benchmarks import training

OPTIONS = {
    "baseline": (),
    "warmup 100": ("bank.warmup=100",),
    "max_age 60": ("bank.max_age=60",),
    "own_images": ("bank.own_images=true",),
    "encoder_momentum 0.99": ("bank.encoder_momentum=0.99",),
    "storage float16": ("bank.storage=float16",),
    "storage bfloat16": ("bank.storage=bfloat16",),
}
SEEDS = (235, 236)
LABELS = "scribble30"
COLUMNS = ("classifier", "neighbours", "cpu_s", "drift", "purity")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bank_options", description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("SPML_DATA"), help="else SPML_DATA")
    parser.add_argument("--out", type=Path, required=True, help="packs, runs and the results")
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args(argv)
    if args.data is None:
        parser.error("name the folder that holds gid15: --data DIR or SPML_DATA")
    args.out.mkdir(parents=True, exist_ok=True)
    words = ("--labels", f"{LABELS},tags")
    packs = {
        part: training.pack(args.out, args.data / "gid15", part, f"gid15_{LABELS}/{part}", *words)
        for part in ("train", "val")
    }
    rows = []
    for seed, option in product(SEEDS, OPTIONS):
        rows.append(trained(option, packs, seed, args.steps, args.out))
        write(args.out, rows)
    return 0


def trained(option: str, packs: dict[str, Path], seed: int, steps: int, out: Path) -> dict:
    """Train and evaluate one run, or what is left of it; its row."""
    run = f"{option.replace(' ', '_')}_{seed}"
    words = (f"seed={seed}", "schedule.warmup=10", "bank.candidates=nearest+sampled", *OPTIONS[option])
    training.train(out, "gid15_scribble.yaml", run, steps, "val", packs, *words)
    readouts = training.result(out, run, "val")["readouts"]
    return {
        "option": option,
        "seed": seed,
        "steps": steps,
        **{way: 100 * readouts[way]["miou"] for way in ("classifier", "neighbours")},
        "cpu_s": training.cpu_seconds(out, run) / steps,
        "drift": training.logged(out, run, "bank/drift_cosine", steps // 2),
        "purity": training.logged(out, run, "bank/purity", steps // 2),
    }


def write(out: Path, rows: list[dict]) -> None:
    """A row a run, and the table of means and deviations over the seeds."""
    table = [("option", "seeds", *COLUMNS)]
    for option in OPTIONS:
        same = [row for row in rows if row["option"] == option]
        if same:
            means = (training.mean(row[column] for row in same) for column in COLUMNS)
            table.append((option, str(len(same)), *means))
    training.write(out, "bank_options", rows, table)


if __name__ == "__main__":
    raise SystemExit(main())
