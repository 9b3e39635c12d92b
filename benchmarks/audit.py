"""Whether `audit` finds labels that are wrong: some of an index's labels are flipped, and looked for.

    python -m benchmarks.audit index/gid15 --json OUT

A share of the annotated segments gets another of the classes that occur, drawn evenly. Three rankings say
which labels are suspicious: `audit` (the neighbours' votes), the joint classifier's loss at the given label
(mean of its log-probabilities over the segment's cells; what confident learning ranks by), and chance.
Nothing is trained again: network and classifier have learnt from the labels as they were, which helps both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spml_dist import tables
from spml_dist.bank.rows import ANNOTATED
from spml_dist.inference import whole_image
from spml_dist.progress import progress_bar
from spml_dist.retrieval import outlines
from spml_dist.retrieval.audit import audit
from spml_dist.retrieval.collection import Collection, open_index
from spml_dist.run_folder import RunFolder

SHARE, SEEDS = 0.05, (0, 1, 2)
KEYS = ("precision@n", "recall@2n", "average_precision")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.audit",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("index", type=Path, help="index that `spml-dist index` wrote, of labelled packs")
    parser.add_argument("--share", type=float, default=SHARE, help=f"of the labels (default: {SHARE})")
    parser.add_argument("-k", type=int, default=20, help="neighbours that vote (default: 20)")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    args = parser.parse_args(argv)
    collection = open_index(args.index)
    rows = np.flatnonzero(collection.index.column("source") == ANNOTATED)
    loss = losses(collection, rows)
    found = [
        {"seed": seed, "ranking": name, "labels": len(rows), **numbers}
        for seed in SEEDS
        for name, numbers in compared(collection, rows, loss, args.share, args.k, seed).items()
    ]
    print(tables.table(("ranking", "seed", *KEYS), [_shown(row) for row in found]))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def compared(
    collection: Collection, rows: np.ndarray, loss: np.ndarray, share: float, k: int, seed: int
) -> dict[str, dict[str, float]]:
    """Numbers of each ranking. rows: [n] annotated; loss: [n, K] of the classifier at each class."""
    index, random = collection.index, np.random.default_rng(seed)
    right = index.label
    present = np.unique(right[rows])
    flipped = np.zeros(len(rows), bool)
    flipped[random.choice(len(rows), round(share * len(rows)), replace=False)] = True
    wrong = right.copy()
    for place in np.flatnonzero(flipped):
        wrong[rows[place]] = random.choice(present[present != right[rows[place]]])
    index.__dict__["label"] = wrong  # in the place of what it has read
    listed = {each.row: -place for place, each in enumerate(audit(collection, k, progress=True))}
    index.__dict__["label"] = right
    votes = np.array([listed.get(row, -len(rows)) for row in rows.tolist()], np.float64)
    of_label = np.take_along_axis(loss, wrong[rows, None].astype(np.int64), 1)[:, 0]
    rankings = {"audit": votes, "classifier's loss": of_label, "chance": random.random(len(rows))}
    return {name: ranked(flipped, suspicion) for name, suspicion in rankings.items()}


def ranked(flipped: np.ndarray, suspicion: np.ndarray) -> dict[str, float]:
    """How well a ranking puts the n flipped ones first. flipped: [m] bool; suspicion: [m], high is first."""
    hits = flipped[np.argsort(-suspicion, kind="stable")]
    n, places = int(flipped.sum()), np.arange(1, len(hits) + 1)
    precision = np.cumsum(hits) / places
    numbers = precision[n - 1], hits[: 2 * n].mean() * 2, precision[hits].mean()
    return dict(zip(KEYS, map(float, numbers), strict=True))


@torch.inference_mode()
def losses(collection: Collection, rows: np.ndarray) -> np.ndarray:
    """[n, K] float32: the classifier's mean negative log-probability of each class at segments."""
    from spml_dist.model import export

    index = collection.index
    model, _ = export.load(RunFolder(Path(index.infos["run"])).export)
    result = np.zeros((len(rows), len(index.classes)), np.float32)
    picture = index.picture[rows]
    for number in progress_bar(np.unique(picture).tolist(), "classifying", unit="images"):
        places = np.flatnonzero(picture == number)
        segments = [index.segment(int(row)) for row in rows[places]]
        sample, _ = index.pictures.read(*segments[0].place, segments[0].key)
        embedded = whole_image.embed(model, sample.image, index.infos["cut"]["longer_side"])
        loss = -model.classify(embedded.raw)[0].log_softmax(dim=0).cpu().numpy()
        for place, segment in zip(places, segments, strict=True):
            result[place] = loss[:, outlines.decode(segment.outline, segment.grid)].mean(axis=1)
    return result


def _shown(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["ranking"], row["seed"], *(f"{row[key]:.3f}" for key in KEYS)


if __name__ == "__main__":
    sys.exit(main())
