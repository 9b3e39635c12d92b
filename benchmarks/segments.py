"""Batched k-means beside a loop over images: `python -m benchmarks.segments --json OUT`.

Four images of 128×128 pixels and 64 dimensions, 36 clusters, 10 iterations, off the autograd tape in both:
the loop is the published order of work (one image at a time, sums by index, cosine by product). Both give
the same labels; the ratio is that of medians of repetitions taken in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from spml_dist.method.kmeans import cluster, initial_grid, unit
from spml_dist.method.location import location

IMAGES, SIDE, DIMENSIONS, GRID, ITERATIONS = 4, 128, 64, (6, 6), 10


def features() -> Tensor:
    """Seeded: smooth fields with noise, which cluster as a network's embedding does."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.randn(IMAGES, DIMENSIONS, SIDE // 16, SIDE // 16, generator=g)
    smooth = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    noisy = smooth + 0.3 * torch.randn(smooth.shape, generator=g)
    embedding = unit(noisy.movedim(1, -1))
    return unit(torch.cat([embedding, location(SIDE, SIDE).expand(IMAGES, -1, -1, -1)], dim=-1))


@torch.no_grad()
def loop(points: Tensor) -> Tensor:
    """One image after the other."""
    start = torch.unique(initial_grid(GRID, SIDE, SIDE), return_inverse=True)[1].flatten()
    k, images = int(start.max()) + 1, []
    for image in points.flatten(1, 2):
        labels = start
        for _ in range(ITERATIONS):
            centres = unit(torch.zeros(k, image.shape[1]).index_add_(0, labels, image))
            labels = (image @ centres.T).argmax(dim=1)
        images.append(labels.reshape(SIDE, SIDE))
    return torch.stack(images)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segments", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repetitions", type=int, default=9)
    args = parser.parse_args(argv)
    torch.set_num_threads(2)
    points = features()
    ways = {"loop": lambda: loop(points), "batched": lambda: cluster(points, GRID, ITERATIONS)}
    differing = int((ways["loop"]() != ways["batched"]()).sum())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.repetitions):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "images": IMAGES,
        "side": SIDE,
        "dimensions": DIMENSIONS,
        "threads": 2,
        "loop_s": medians["loop"],
        "batched_s": medians["batched"],
        "ratio_time": medians["loop"] / medians["batched"],
        "pixels_that_differ": differing,
    }
    print("\n".join(f"{name:20} {value:.4g}" for name, value in result.items()))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
