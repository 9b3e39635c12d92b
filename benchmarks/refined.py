"""What comes after an embedding: `python -m benchmarks.refined --out OUT --set NAME --labels KIND --seed N`.

Trains the row `nearest+sampled` of `benchmarks.learning` where OUT/runs does not hold it, then `spml-dist
refine` with the settings of the small configurations, and evaluates each classifier once more with a dense
CRF; with --test all of it on the test split too, for sets that have one; with --again a network is trained
once more, from the labels that S2 learns from, by the relations and by cross-entropy into the backbone. Tags
and boxes get seeds of class activation maps first, the same for all seeds (`spml-dist cam`). What is there is
not repeated, neither where OUT/runs holds it nor where OUT/refined.json knows it, so the same command goes
on, and on another machine from the file of this one, such as docs/refined.json. OUT/refined.md has the mIoU
and the boundary IoU of each stage, in per cent, means and deviations over the seeds; OUT/refined.json the
values of each seed; --table writes them without training. Extra `crf`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from benchmarks import learning, training
from spml_dist.errors import RunError
from spml_dist.inference.crf import require as require_crf

ROW = "nearest+sampled"
CLASSIFIER = (
    *("classifier.steps=500", "classifier.batch=8", "classifier.warmup=25"),
    *("classifier.dropout=0.1", "classifier.grey=0", "classifier.blur=0"),
)
CRF = ("--readouts", "classifier", "--crf")
AGAIN = "_again"
"""behind the name of an embedding, that of the network that learns from the labels made by it"""
STAGES = ("embedding", "cam-walk", "neighbours-1", "s1", "walk", "scores", "neighbours-2", "s2", "again")
READOUTS = ("labels", "classifier", "neighbours", "classifier, CRF")
KEYS = ("set", "labels", "stage", "readout", "split")
Case = tuple[str, ...]
"""a value of each of KEYS"""
Values = tuple[float, float | None]
"""mIoU and boundary IoU in per cent; labels have none of the second"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.refined", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="that of benchmarks.learning")
    parser.add_argument("--data", type=Path, default=os.environ.get("SPML_DATA"), metavar="DIR")
    parser.add_argument("--set", nargs="+", choices=learning.SETS, default=[], metavar="NAME", dest="sets")
    parser.add_argument("--labels", nargs="+", choices=learning.LABELS, default=[], metavar="KIND")
    parser.add_argument("--seed", nargs="+", type=int, default=[learning.SEEDS[0]], metavar="N", dest="seeds")
    parser.add_argument("--test", action="store_true", help="on the test split too")
    parser.add_argument(
        "--again", action="store_true", help="train once more, from the labels that were made"
    )
    parser.add_argument("--table", action="store_true", help="write the table of what is there")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.table:
        if not args.data:
            parser.error("--data or the environment's SPML_DATA is needed")
        if not (args.sets and args.labels):
            parser.error("--set and --labels are needed")
        wanted = [
            case
            for case in product(args.seeds, args.sets, args.labels)
            if not _is_known(args.out, *case, args.test, args.again)
        ]
        if wanted:
            try:
                require_crf()  # not after an hour of training
            except RunError as error:
                parser.error(str(error))
        for seed, name, labels in wanted:
            refine(args.out, args.data / name, labels, seed, args.test)
            if args.again:
                again(args.out, name, labels, seed)
            write(args.out)
    write(args.out)
    return 0


def refine(out: Path, folder: Path, labels: str, seed: int, test: bool) -> None:
    """One embedding and all that follows it, or what is left of that."""
    name = folder.name
    learning.train(out, folder, labels, ROW, seed, learning.STEPS)
    run = run_name(name, labels, seed)
    cam = ("--cam", f"runs/{learning.maps_run(name, labels)}") if labels == "tags" else ()
    training.verb(out, "refine", f"runs/{run}", "--alone", *cam, *CLASSIFIER)
    for split in _splits(test):
        pack = training.pack(out, folder, split, f"{name}_masks/{split}", "--labels", "masks")
        for network, crf in product((run, f"{run}/stages/s1", f"{run}/stages/s2"), ((), CRF)):
            if not (out / "runs" / network / _result(split, crf)).exists():
                words = (f"data.{split}={pack}", "--split", split, "--pictures", "0", *crf)
                training.verb(out, "evaluate", f"runs/{network}", *words)


def again(out: Path, name: str, labels: str, seed: int) -> None:
    """One more network on the labels of all pixels, evaluated on val."""
    run = run_name(name, labels, seed)
    made = Path("runs") / run / "stages" / ("neighbours-2" if labels == "tags" else "walk")
    val = Path("data") / f"{name}_masks" / "val"
    words = (f"seed={seed}", *learning.WORDS, *learning.ROWS["both_losses"])
    packs = {"train": made, "val": val, "test": val}
    training.train(out, learning.SETS[name], run + AGAIN, learning.STEPS, "val", packs, *words)


def run_name(name: str, labels: str, seed: int) -> str:
    """Of the embedding that all stages follow."""
    return f"{learning.run_name(name, labels, ROW, learning.STEPS)}_{seed}"


def write(out: Path) -> None:
    """The table and its JSON: of what OUT/refined.json knew, and of every refinement that OUT/runs holds."""
    found = known(out)
    for name, labels in product(learning.SETS, learning.LABELS):
        start = learning.run_name(name, labels, ROW, learning.STEPS)
        for run in (out / "runs").glob(f"{start}_*"):
            seed = run.name.removeprefix(f"{start}_")
            if seed.isdigit() and (run / "refinement.json").exists():
                for what, values in measured(run):
                    found.setdefault((name, labels, *what), {})[int(seed)] = values
    rows, table = [], [("set", "labels", "stage", "read-out", "split", "seeds", "mIoU", "boundary IoU")]
    for case in sorted(found, key=_place):
        seeds = sorted(found[case])
        miou, boundary = zip(*(found[case][seed] for seed in seeds), strict=True)
        row = dict(zip(KEYS, case, strict=True))
        rows.append(row | {"seeds": seeds, "miou": miou, "boundary": boundary})
        table.append((*case, str(len(seeds)), training.mean(miou, 1), training.mean(boundary, 1)))
    training.write(out, "refined", rows, table)


def known(out: Path) -> dict[Case, dict[int, Values]]:
    """What OUT/refined.json says: the values of each case by seed."""
    path = out / "refined.json"
    cases: dict[Case, dict[int, Values]] = {}
    for row in json.loads(path.read_text()) if path.exists() else ():
        values = zip(row["miou"], row["boundary"], strict=True)
        case = tuple(row[key] for key in KEYS)
        cases[case] = dict(zip(row["seeds"], values, strict=True))
    return cases


def measured(run: Path) -> Iterator[tuple[tuple[str, str, str], Values]]:
    """(stage, read-out, split) and what it came to, in the stages' order."""
    yield from _classifier(run, "embedding")
    yield from _classifier(run / "stages" / "s1", "s1")
    for each in json.loads((run / "refinement.json").read_text())["stages"]:
        if each["readout"] == "labels":
            yield (each["stage"], "labels", each["split"]), (100 * each["miou"], None)
    yield from _classifier(run / "stages" / "s2", "s2")
    yield from _classifier(run.with_name(run.name + AGAIN), "again")


def _classifier(network: Path, stage: str) -> Iterator[tuple[tuple[str, str, str], Values]]:
    for split, crf in product(("val", "test"), ((), CRF)):
        path = network / _result(split, crf)
        readouts = json.loads(path.read_text())["readouts"] if path.exists() else {}
        for readout, values in readouts.items():
            way = f"{readout}, CRF" if crf else readout
            edges = values.get("boundary_miou")  # results of earlier releases have none
            yield (stage, way, split), (100 * values["miou"], None if edges is None else 100 * edges)


def _is_known(out: Path, seed: int, name: str, labels: str, test: bool, again: bool) -> bool:
    """Whether OUT/refined.json has all that is measured last."""
    ends = [("s2", "classifier, CRF", split) for split in _splits(test)]
    ends += [("again", "neighbours", "val")] if again else []
    cases = known(out)
    return all(seed in cases.get((name, labels, *end), {}) for end in ends)


def _place(case: Case) -> tuple[int, ...]:
    name, labels, stage, readout, split = case
    places = list(learning.SETS).index(name), learning.LABELS.index(labels), STAGES.index(stage)
    return *places, ("train", "val", "test").index(split), READOUTS.index(readout)


def _splits(test: bool) -> tuple[str, ...]:
    return ("val", "test") if test else ("val",)


def _result(split: str, crf: Sequence[str]) -> str:
    """Name of the file of an evaluation."""
    if crf:
        return f"result_{split}_classifier_crf.json"
    return "result.json" if split == "val" else f"result_{split}.json"


if __name__ == "__main__":
    raise SystemExit(main())
