"""Whether `suggest` says where to click: N points that it chooses, beside N random ones and N of a grid.

    python -m benchmarks.suggest index/gid15 --train gid15_masks_train --val gid15_masks_val --json OUT

DIR is an index of two packs with masks. Nobody has labelled anything, N points of the train pack are clicked
on, each is told its class, and every segment of the val pack takes the class of the nearest point's segment.
mIoU counts segments of val by their area; a segment's class is that of most of its pixels in the masks.

Three ways to choose: `suggest`, which has no chance in it; pixels drawn evenly over all images, by three
seeds; the points of the coarsest grid over every image that has N of them, a single one as long as there are
images enough, of images taken at even distances from three starts.
Nothing is trained: the network is what the index was cut by, and all three ways read the same embedding.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from spml_dist import tables
from spml_dist.inference.metrics import miou
from spml_dist.retrieval import outlines
from spml_dist.retrieval.collection import Collection, open_index
from spml_dist.retrieval.suggest import suggest

POINTS, SEEDS = (25, 50, 100, 200, 400), (0, 1, 2)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.suggest",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "index", type=Path, help="index that `spml-dist index` wrote, of two packs with masks"
    )
    parser.add_argument("--train", required=True, help="name of the pack that is clicked on")
    parser.add_argument("--val", required=True, help="name of the pack that is measured")
    parser.add_argument("--points", type=int, nargs="+", default=POINTS, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    args = parser.parse_args(argv)
    collection = open_index(args.index)
    found = compared(collection, args.train, args.val, args.points)
    print(tables.table(("points", "way", "mIoU", "deviation"), [_shown(row) for row in found]))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def compared(collection: Collection, train: str, val: str, points: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each number of points and way to choose them, with the mIoU of each seed in per cent."""
    ours, theirs = (_rows_of(collection, name) for name in (train, val))
    with _unlabelled(collection):
        chosen = np.array([segment.row for segment, _ in suggest(collection, max(points), train)])
    rows = []
    for n in points:
        ways = {
            "suggest": [chosen[:n]],
            "random": [random_rows(collection, ours, n, seed) for seed in SEEDS],
            "grid": [grid_rows(collection, ours, n, seed) for seed in SEEDS],
        }
        for way, draws in ways.items():
            values = [100 * read_out(collection, clicked, theirs) for clicked in draws]
            rows.append({"points": n, "way": way, "miou": values})
    return rows


def random_rows(collection: Collection, rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """[n] rows under pixels that are drawn evenly."""
    area = collection.index.column("area")[rows].astype(np.float64)
    return np.random.default_rng(seed).choice(rows, n, replace=False, p=area / area.sum())


def grid_rows(collection: Collection, rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """[n] rows under the points of a grid, as coarse as n allows, of images at even distances."""
    index = collection.index
    pictures = np.unique(index.picture[rows])
    side = math.ceil(math.sqrt(n / len(pictures)))
    some = min(len(pictures), -(-n // side**2))
    start = np.random.default_rng(seed).random()
    taken = pictures[((np.arange(some) + start) * len(pictures) / some).astype(int) % len(pictures)]
    found = []
    for picture in taken:
        here = rows[index.picture[rows] == picture]
        shapes = [outlines.decode(each.outline, each.grid) for each in map(index.segment, here.tolist())]
        inside = np.stack(shapes)  # [segments, h, w] bool
        steps = [(np.arange(side) + 0.5) / side * cells for cells in inside.shape[1:]]
        for y, x in product(*(step.astype(int) for step in steps)):
            found += here[inside[:, y, x]].tolist()
    return np.array(found[:n])


def read_out(collection: Collection, clicked: np.ndarray, measured: np.ndarray) -> float:
    """mIoU, a share, of rows that take the class of the nearest clicked row."""
    index = collection.index
    label = index.label
    clicked, measured = clicked[label[clicked] >= 0], measured[label[measured] >= 0]
    near = index.vectors[measured].astype(np.float32) @ index.vectors[clicked].astype(np.float32).T
    predicted = label[clicked][near.argmax(axis=1)]
    classes = len(index.classes)
    cells = label[measured].astype(np.int64) * classes + predicted
    area = index.column("area")[measured].astype(np.float64)
    confusion = np.bincount(cells, weights=area, minlength=classes**2).reshape(classes, classes)
    return miou(confusion)


@contextmanager
def _unlabelled(collection: Collection) -> Iterator[None]:
    """Nobody has labelled anything, meanwhile."""
    known = collection.index.label
    collection.index.__dict__["label"] = np.full_like(known, -1)  # in the place of what it has read
    try:
        yield
    finally:
        collection.index.__dict__["label"] = known


def _rows_of(collection: Collection, name: str) -> np.ndarray:
    index = collection.index
    return np.flatnonzero(index.column("pack") == [pack.name for pack in index.packs].index(name))


def _shown(row: dict[str, Any]) -> tuple[Any, ...]:
    values = row["miou"]
    deviation = f"{statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return row["points"], row["way"], f"{statistics.mean(values):.1f}", deviation


if __name__ == "__main__":
    sys.exit(main())
