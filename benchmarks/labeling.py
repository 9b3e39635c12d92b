"""Random walks beside squaring, and on a large image: `python -m benchmarks.labeling --json OUT`.

The walk: a grid of 62×47 cells (an image of 500×376 pixels) and 21 classes, both from the same transition;
64 products with the seeds beside 6 squarings and one product, as the release walks. Both give the same
scores; the ratio is that of medians of repetitions taken in turn. Then the labeler on a generated image of
4,000×4,000 pixels with three classes, in windows, by a small untrained network, in a process of its own: its
peak of memory is everything that the process ever held, libraries included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch

from spml_dist.config.labeling_models import LabelingConfig
from spml_dist.config.models import ModelConfig
from spml_dist.labeling import network, random_walk
from spml_dist.labeling.network import TrainedSegmenter
from spml_dist.labeling.walks import SoftmaxWalk
from spml_dist.model.segmenter import build
from spml_dist.records import UNLABELLED, Sample

GRID, CLASSES, SQUARINGS = (62, 47), 21, 6
SIDE, SHOWN = 4000, (0, 3, 7)


def transition() -> torch.Tensor:
    """Of a smooth embedding with noise, seeded."""
    generator = torch.Generator().manual_seed(0)
    smooth = random_walk.resize(torch.randn(2, 64, 6, 6, generator=generator), GRID)
    noisy = smooth + 0.3 * torch.randn(smooth.shape, generator=generator)
    return random_walk.transition(random_walk.affinity(noisy, GRID))


def squared(seeds: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """As the release walks."""
    for _ in range(SQUARINGS):
        step = step @ step
    return (seeds.flatten(1) @ step).view_as(seeds)


def walks(repetitions: int) -> dict:
    """Seconds of both ways, their ratio, and how far their scores are apart."""
    step = transition()
    seeds = torch.rand(CLASSES, *GRID, generator=torch.Generator().manual_seed(1)).softmax(dim=0)
    ways = {"products": lambda: random_walk.walk(seeds, step), "squaring": lambda: squared(seeds, step)}
    apart = float((ways["products"]() - ways["squaring"]()).abs().max())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "name": "walk",
        "cells": GRID[0] * GRID[1],
        "classes": CLASSES,
        **medians,
        "ratio": medians["squaring"] / medians["products"],
        "apart": apart,
    }


def large(side: int) -> dict:
    """Seconds and peak memory of the labeler on an image of side × side, measured in this process."""
    torch.set_num_threads(2)
    config = ModelConfig(backbone="resnet10t", pretrained=False, dilations=(1, 2, 3, 4), frozen=())
    model = build(config, CLASSES, seed=0).eval()
    network._segmenter = lambda *_: model  # type: ignore[assignment]
    segmenter = TrainedSegmenter(Path(), "", "cpu", CLASSES, 0, None, (12, 12), 10, ())
    pixels = np.random.default_rng(0).integers(0, 256, (side // 100 + 1, side // 100 + 1, 3), np.uint8)
    image = np.ascontiguousarray(pixels.repeat(100, 0).repeat(100, 1)[:side, :side])
    blank = np.full(image.shape[:2], UNLABELLED, np.uint8)
    sample = Sample("large", image, blank, np.zeros(blank.shape, np.uint16), SHOWN)
    before, start = peak_mb(), time.perf_counter()
    found = SoftmaxWalk(segmenter, LabelingConfig())(sample)
    return {
        "name": "windowed walk",
        "side": side,
        "seconds": time.perf_counter() - start,
        "peak_mb": peak_mb(),
        "before_mb": before,
        "labelled": float((found.semantic != UNLABELLED).mean()),
    }


def peak_mb() -> float:
    """The most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labeling", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--side", type=int, default=SIDE, help="of the large image, in pixels")
    args = parser.parse_args(argv)
    torch.set_num_threads(2)
    rows = [walks(args.repetitions)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        rows.append(pool.apply(large, (args.side,)))
    for row in rows:
        print(json.dumps(row))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
