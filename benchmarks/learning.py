"""What learning from weak labels gains by: `python -m benchmarks.learning --out OUT --row NAME --seed N`.

Trains rows of a study, named by --list: plain cross-entropy, the relations without a bank, with the last two
steps and with a bank of the data set, and the last with one thing changed. All start from the same settings,
those of WORDS: a network with ImageNet weights, 500 steps of 8 crops of 160 pixels, one process without
DeepSpeed. Each run is evaluated on val by both read-outs.

--set names folders under --data, which defaults to the environment's SPML_DATA, --labels kinds of annotation
in them; both, --row and --seed take several. A broken-off run goes on from its checkpoint and a finished one
is not repeated: neither one whose folder OUT/runs holds, nor one that OUT/learning.json knows. So the same
command goes on, and a table is filled over days and machines: start with the file of the day before, such as
docs/learning.json. After every run OUT/learning.md has the table of all runs there are, means and deviations
over the seeds, OUT/learning.json the same with each seed's values, and OUT/learning.png the first rows as
bars; --table writes them without training. `cpu_s` is the processor time of a training in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

from benchmarks import training

SETS = {"gid15": "gid15_scribble.yaml", "msrc21": "gid15_scribble.yaml", "ccp": "ccp_scribble.yaml"}
"""folder → configuration; with WORDS they differ in the classes that co-occurrence ignores alone"""
LABELS = ("scribble30", "points1", "masks", "boxes", "tags")
MAPPED = ("boxes", "tags")
"""labels of which activation maps make seeds of pixels, the same for all seeds of the trainings"""
SEEDS = (235, 7, 11)
STEPS = 500
WORDS = (
    "model.backbone=mobilenetv2_100",
    "model.pretrained=true",
    "model.output_stride=16",
    "model.feature_level=3",
    "model.dilations=[1, 2, 3, 4]",
    "model.embedding_dim=64",
    "model.norm_momentum=0.01",
    "stream.batch=8",
    "stream.crop=160",
    "schedule.warmup=25",
    "optimizer.lr=0.003",
    "optimizer.head_multiplier=10",
    "optimizer.clip_norm=null",
    "bank.candidates=nearest+sampled",
    "loss.pixels_per_segment=4",
    "checkpoint.every=100",
)
RECENT = ("bank.candidates=recent", "bank.steps=2")
NO_BANK = ("bank.candidates=recent", "bank.steps=0")
NO_RELATIONS = tuple(
    f"relations.{name}.weight=0"
    for name in ("image_similarity", "annotation", "cooccurrence", "feature_affinity")
)
PLAIN = (*NO_RELATIONS, *NO_BANK, "model.classifier_detached=false")
SCRATCH = ("model.pretrained=false", "model.norm_momentum=0.1")

ROWS: dict[str, tuple[str, ...]] = {
    "cross_entropy": PLAIN,
    "no_bank": NO_BANK,
    "recent": RECENT,
    "nearest+sampled": (),
    "both_losses": ("model.classifier_detached=false",),
    "both_losses_0.3": ("model.classifier_detached=false", "loss.cross_entropy=0.3"),
    "clip_together": ("optimizer.clip_norm=1.0",),
    "clip_apart": ("optimizer.clip_norm=1.0", "optimizer.clip=apart"),
    "pixels_all": ("loss.pixels_per_segment=null",),
    "pixels_2": ("loss.pixels_per_segment=2",),
    "pixels_8": ("loss.pixels_per_segment=8",),
    "labels_majority": ("segments.labels=majority",),
    "dilations_paper": ("model.dilations=[6, 12, 18, 24]",),
    "dilations_paper_cross_entropy": (*PLAIN, "model.dilations=[6, 12, 18, 24]"),
    "scratch": SCRATCH,
    "scratch_cross_entropy": (*PLAIN, *SCRATCH),
    "lite0": ("model.backbone=tf_efficientnet_lite0",),
    "lite0_cross_entropy": (*PLAIN, "model.backbone=tf_efficientnet_lite0"),
    "momentum_encoder": ("bank.encoder_momentum=0.99",),
    "bank_warmup_100": ("bank.warmup=100",),
    "bank_warmup_250": ("bank.warmup=250",),
    "max_age_100": ("bank.max_age=100",),
    "own_images": ("bank.own_images=true",),
    "sampled_256": ("bank.sampled=256",),
    "image_similarity_0": ("relations.image_similarity.weight=0",),
    "image_similarity_1": ("relations.image_similarity.weight=1.0",),
    "annotation_0": ("relations.annotation.weight=0",),
    "annotation_2": ("relations.annotation.weight=2.0",),
    "annotation_alone": ("relations.image_similarity.weight=0", "relations.cooccurrence.weight=0"),
    "annotation_kappa_12": ("relations.annotation.concentration=12",),
    "cooccurrence_0": ("relations.cooccurrence.weight=0",),
    "cooccurrence_0.1": ("relations.cooccurrence.weight=0.1",),
    "cooccurrence_others": ("relations.cooccurrence.own_image=false",),
    "bank_random": (),
    "bank_frozen": (),
}
"""row → what it changes in WORDS; the first four answer whether the method and its bank are worth it"""
CONTROLS = {"bank_random": "random", "bank_frozen": "frozen"}
"""row → how benchmarks.bank_controls spoils the bank of the data set, to refute that it helps"""
COLUMNS = ("classifier", "neighbours", "cpu_s")
PLOTTED = {
    "cross_entropy": "cross-entropy on the labelled pixels",
    "recent": "relations, bank of two steps",
    "nearest+sampled": "relations, bank of the data set",
    "both_losses": "the same, and cross-entropy into the backbone too",
}
"""row → its name in the plot"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("--out", type=Path, help="packs, runs and the results")
    parser.add_argument("--data", type=Path, default=os.environ.get("SPML_DATA"), metavar="DIR")
    parser.add_argument("--row", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    parser.add_argument("--set", nargs="+", choices=SETS, default=list(SETS), metavar="NAME", dest="sets")
    parser.add_argument("--labels", nargs="+", choices=LABELS, default=list(LABELS), metavar="KIND")
    parser.add_argument("--seed", nargs="+", type=int, default=list(SEEDS), metavar="N", dest="seeds")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--list", action="store_true", help="name the rows and what each changes")
    parser.add_argument("--table", action="store_true", help="write the table of what is there")
    args = parser.parse_args(argv)
    if args.list:
        for name, words in ROWS.items():
            control = ("benchmarks.bank_controls", CONTROLS[name]) if name in CONTROLS else ()
            print(f"{name:<30} {' '.join((*words, *control))}".rstrip())
        return 0
    if args.out is None or not (args.table or args.data):
        parser.error("--out is needed, and to train --data or the environment's SPML_DATA")
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.table:
        for seed, name, labels, row in product(args.seeds, args.sets, args.labels, args.row):
            if seed not in known(args.out).get((name, labels, row, args.steps), {}):
                train(args.out, args.data / name, labels, row, seed, args.steps)
                write(args.out)
    write(args.out)
    return 0


def train(out: Path, folder: Path, labels: str, row: str, seed: int, steps: int) -> None:
    """Pack, train and evaluate one run, or what is left of it."""
    name = folder.name
    packs = {
        split: training.pack(out, folder, split, f"{name}_{kind}/{split}", "--labels", kind)
        for split, kind in (("train", labels), ("val", "masks"))
    }
    if labels in MAPPED:
        packs["train"] = seeds_of_maps(out, name, labels, packs["train"])
    packs["test"] = packs["val"]
    words = (f"seed={seed}", *WORDS, *ROWS[row])
    run = f"{run_name(name, labels, row, steps)}_{seed}"
    program = ("benchmarks.bank_controls", CONTROLS[row]) if row in CONTROLS else training.PROGRAM
    training.train(out, SETS[name], run, steps, "val", packs, *words, program=program)


def seeds_of_maps(out: Path, name: str, labels: str, weak: Path) -> Path:
    """The pack of a pack's activation maps, relative to OUT; made where it is not there."""
    seeds = Path("data") / f"{name}_{labels}_seeds" / "train"
    if not (out / seeds / "manifest.json").exists():
        run = maps_run(name, labels)
        words = (f"name={run.removesuffix('_cam')}", f"data.train={weak}", "data.val=null", "data.test=null")
        config = str(training.ROOT / "configs" / SETS[name])
        training.verb(out, "cam", "train", config, "--alone", *words, *WORDS, f"cam.steps={STEPS}")
        training.verb(out, "cam", "infer", f"runs/{run}", str(weak), "--out", str(seeds))
    return seeds


def maps_run(name: str, labels: str) -> str:
    """Of the classifier of tags in OUT/runs."""
    return f"{name}_{labels}_maps_cam"


def run_name(name: str, labels: str, row: str, steps: int) -> str:
    """Of a run but for its seed, which is behind it and a '_'."""
    return f"{name}_{labels}_{row.replace('+', '_')}" + ("" if steps == STEPS else f"_steps{steps}")


Case = tuple[str, str, str, int]
"""set, labels, row, steps"""


def write(out: Path) -> None:
    """The table and its JSON: of what OUT/learning.json knew, and of every finished run that OUT holds."""
    found = known(out)
    for name, labels, row in product(SETS, LABELS, ROWS):
        for path in (out / "runs").glob(f"{name}_{labels}_{row.replace('+', '_')}_*"):
            steps, seed = _steps_and_seed(path.name.removeprefix(run_name(name, labels, row, STEPS)))
            if seed is not None and (values := _run(out, path.name, steps)):
                found.setdefault((name, labels, row, steps), {})[seed] = values
    rows, table = [], [("set", "labels", "row", "steps", "seeds", *COLUMNS)]
    for case in sorted(found, key=_place):
        runs = dict(sorted(found[case].items()))
        name, labels, row, steps = case
        columns = _columns(runs)
        rows.append({"set": name, "labels": labels, "row": row, "steps": steps, **columns})
        values = (training.mean(columns[column]["values"], 1) for column in COLUMNS)
        table.append((name, labels, row, str(steps), str(len(runs)), *values))
    training.write(out, "learning", rows, table)
    if rows:
        plot(rows, out / "learning.png")


def plot(rows: Sequence[dict], path: Path) -> None:
    """Bars of the better read-out of each way to train, a group for each set and its labels."""
    from matplotlib.figure import Figure

    ways = [way for way in PLOTTED if any(row["row"] == way for row in rows)]
    groups = list(dict.fromkeys((row["set"], row["labels"]) for row in rows if row["row"] in ways))
    figure = Figure(figsize=(1 + 1.1 * max(len(groups), 3), 3.6), layout="constrained")
    axes = figure.subplots()
    for number, way in enumerate(ways):
        for place, group in enumerate(groups):
            for row in rows:
                if (row["set"], row["labels"]) == group and (row["row"], row["steps"]) == (way, STEPS):
                    best = max((row[name] for name in ("classifier", "neighbours")), key=lambda c: c["mean"])
                    at = place + (number - (len(ways) - 1) / 2) * 0.8 / len(ways)
                    axes.bar(at, best["mean"], 0.75 / len(ways), yerr=best["deviation"], color=f"C{number}")
                    said = {"ha": "center", "va": "bottom", "rotation": 90, "color": "white", "fontsize": 8}
                    axes.text(at, 1, f"{best['mean']:.1f}", **said)
    axes.set_xticks(range(len(groups)), [f"{name}\n{labels}" for name, labels in groups])
    axes.set_ylabel("mIoU on val, per cent")
    handles = [axes.bar(0, 0, color=f"C{number}") for number in range(len(ways))]
    names = [PLOTTED[way] for way in ways]
    figure.legend(handles, names, loc="outside upper left", fontsize=8, frameon=False, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def known(out: Path) -> dict[Case, dict[int, dict[str, float]]]:
    """What OUT/learning.json says: the values of each run by its case and seed."""
    path = out / "learning.json"
    cases: dict[Case, dict[int, dict[str, float]]] = {}
    for each in json.loads(path.read_text()) if path.exists() else ():
        values = zip(*(each[column]["values"] for column in COLUMNS), strict=True)
        by_seed = zip(each["seeds"], (dict(zip(COLUMNS, run, strict=True)) for run in values), strict=True)
        cases[each["set"], each["labels"], each["row"], each["steps"]] = dict(by_seed)
    return cases


def _place(case: Case) -> tuple:
    name, labels, row, steps = case
    return list(SETS).index(name), LABELS.index(labels), steps, list(ROWS).index(row)


def _steps_and_seed(end: str) -> tuple[int, int | None]:
    """Of the end of a run's name, such as `_235` and `_steps90_235`; one of another row has no seed."""
    match = re.fullmatch(r"(?:_steps(\d+))?_(\d+)", end)
    return (int(match[1] or STEPS), int(match[2])) if match else (STEPS, None)


def _run(out: Path, run: str, steps: int) -> dict[str, float] | None:
    """Mean IoU by each read-out in per cent and processor seconds; None for a run that is not finished."""
    result = training.result(out, run, "val")
    if result is None or result["step"] != steps:
        return None
    readouts = {way: 100 * result["readouts"][way]["miou"] for way in ("classifier", "neighbours")}
    return readouts | {"cpu_s": training.cpu_seconds(out, run)}


def _columns(found: dict[int, dict[str, float]]) -> dict:
    """The seeds, and each column's mean, deviation and values in their order."""
    columns = {column: [run[column] for run in found.values()] for column in COLUMNS}
    return {"seeds": list(found)} | {
        column: {"mean": statistics.mean(values), "deviation": _deviation(values), "values": values}
        for column, values in columns.items()
    }


def _deviation(values: Iterable[float]) -> float | None:
    values = list(values)
    return statistics.stdev(values) if len(values) > 1 else None


if __name__ == "__main__":
    raise SystemExit(main())
