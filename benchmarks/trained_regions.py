"""What regions are worth: `python -m benchmarks.trained_regions --gid15 DIR --ccp DIR --out OUT`.

Trains gid15 and ccp with scribble30 and points1 on regions by Felzenszwalb's method and on those of the
ultrametric contour map, the same network, steps and seed, one process without DeepSpeed, and evaluates on
gid15's val and ccp's test split. DIR are the unpacked archives in the folder layout of shards/README.md. The
same command goes on where it was broken off; OUT/trained_regions.json and the table hold what is there. In
the OUT of benchmarks.labels its runs on the default regions are used as they are.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

from benchmarks import training
from benchmarks.labels import CONFIGS, SPLITS, WAYS

KINDS = ("scribble30", "points1")
REGIONS = ("felzenszwalb", "ucm")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trained_regions", description=__doc__)
    parser.add_argument("--gid15", type=Path, required=True, metavar="DIR")
    parser.add_argument("--ccp", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, help="packs, runs and the results")
    parser.add_argument("--steps", type=int, default=1000)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for kind, name, regions in product(KINDS, ("gid15", "ccp"), REGIONS):
        rows.append(_trained(args.out, name, getattr(args, name), kind, regions, args.steps))
        table = [("set", "labels", "regions", *WAYS)]
        table += [
            (row["set"], row["labels"], row["regions"], *(f"{row[way]:.1f}" for way in WAYS)) for row in rows
        ]
        training.write(args.out, "trained_regions", rows, table)
    return 0


def _trained(out: Path, name: str, folder: Path, kind: str, regions: str, steps: int) -> dict:
    split = SPLITS[name]
    run = f"{name}_{kind}" if regions == REGIONS[0] else f"{name}_{kind}_{regions}"
    held = training.pack(out, folder, split, f"{name}/held", "--labels", "masks")
    packed = training.pack(
        out, folder, "train", run.replace("_", "/", 1), "--labels", kind, "--regions", regions
    )
    data = {"train": packed, "val": held, "test": held}
    training.train(out, CONFIGS[name], run, steps, split, data, "bank.candidates=recent")
    readouts = training.result(out, run, split)["readouts"]
    found = {way: 100 * readouts[way]["miou"] for way in WAYS}
    return {"set": f"{name} {split}", "labels": kind, "regions": regions, "steps": steps, **found}


if __name__ == "__main__":
    raise SystemExit(main())
