"""Packing by one worker and by two: `python -m benchmarks.pack --root DIR --json OUT`.

DIR is a folder for `spml-dist pack folder`. Both pack the same images into an empty folder, each time in a
fresh process and with one thread a worker, and take turns; images/s counts everything from the call to the
manifest, also the start of the workers. The ratio is the median over the turns of two workers ÷ one. Where
the time goes is measured in a last pack by one process: *decode* reads images and draws labels, *regions*
cuts them, *jpeg* and *png* encode, *write* is the rest: tars, digests, records.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from spml_dist.cluster.local_processes import ONE_THREAD
from spml_dist.data.pack import parts
from spml_dist.data.pack.pack import PackDescription, pack_parts, part_sizes
from spml_dist.data.pack.recipe_parts import RecipeParts
from spml_dist.data.pack.region_sources import region_source
from spml_dist.data.recipes.folder import open_folder
from spml_dist.data.recipes.recipe import Recipe
from spml_dist.records import Sample

STAGES = ("decode", "regions", "jpeg", "png", "write")


@dataclass(frozen=True)
class Clock:
    """Seconds that calls take, by stage."""

    seconds: Counter[str] = field(default_factory=Counter)

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return partial(self._call, stage, function)

    def _call(self, stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            self.seconds[stage] += time.perf_counter() - start


@dataclass(frozen=True)
class Watched:
    """A recipe whose calls are timed."""

    recipe: Recipe
    clock: Clock

    @property
    def ids(self) -> tuple[str, ...]:
        return self.recipe.ids

    def sample(self, image_id: str) -> Sample:
        return self.clock.timed("sample", self.recipe.sample)(image_id)

    def jpeg(self, sample: Sample) -> bytes:
        return self.clock.timed("jpeg", self.recipe.jpeg)(sample)


def opened(args: argparse.Namespace) -> Recipe:
    """The images to pack."""
    recipe = open_folder(args.root, args.split, args.labels)
    return replace(recipe, ids=recipe.ids[: args.images], regions=region_source(args.regions))


def seconds(args: argparse.Namespace, workers: int, recipe: Recipe | Watched | None = None) -> float:
    """What one pack takes."""
    recipe = recipe or opened(args)
    described = PackDescription("bench", args.split, args.labels, opened(args).classes, None)
    sizes = part_sizes(len(recipe.ids), args.shard_size)
    with tempfile.TemporaryDirectory(dir=args.scratch) as out:
        start = time.perf_counter()
        pack_parts(RecipeParts(recipe, args.shard_size), sizes, out, described, workers=workers)
        return time.perf_counter() - start


def stages(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of each stage in one process, whose sum is the whole pack's."""
    clock, recipe = Clock(), opened(args)
    parts.encode = clock.timed("png", parts.encode)
    recipe = replace(recipe, regions=clock.timed("regions", recipe.regions))
    whole = seconds(args, 1, Watched(recipe, clock))
    found = dict(clock.seconds)
    found["decode"] = found.pop("sample") - found["regions"]
    return {**found, "write": whole - sum(found.values())}


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments) in a process of its own."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_send, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    answer = ours.recv()
    process.join()
    return answer


def _send(pipe: Connection, function: Callable[..., Any], arguments: tuple) -> None:
    pipe.send(function(*arguments))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pack", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder with images/, classes.txt, ...")
    parser.add_argument("--labels", default="masks", help="kind of annotation (default: masks)")
    parser.add_argument("--split", default="train", help="(default: train)")
    parser.add_argument("--regions", default="felzenszwalb", help="as of `spml-dist pack`")
    parser.add_argument("--images", type=int, default=256, help="the first so many (default: 256)")
    parser.add_argument("--shard-size", type=int, default=16, help="images of a tar (default: 16)")
    parser.add_argument("--repetitions", type=int, default=3, help="turns (default: 3)")
    parser.add_argument("--scratch", type=Path, help="folder to pack in (default: the temporary one)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args(argv)
    os.environ |= ONE_THREAD
    images = len(opened(args).ids)
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(args.repetitions):
        for workers, found in rates.items():
            found.append(images / fresh(seconds, args, workers))
        print("  ".join(f"{workers} workers {found[-1]:6.2f} images/s" for workers, found in rates.items()))
    ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    spent = fresh(stages, args)
    result = {
        "images": images,
        "regions": args.regions,
        "shard_size": args.shard_size,
        "images_per_s": statistics.median(rates[1]),
        "images_per_s_two_workers": statistics.median(rates[2]),
        "ratio": ratio,
        "stages_s_per_image": {stage: spent[stage] / images for stage in STAGES},
    }
    print(f"two workers ÷ one  {ratio:.2f}")
    for stage in STAGES:
        share = spent[stage] / sum(spent.values())
        print(f"{stage:<8} {1e3 * spent[stage] / images:8.1f} ms an image  {share:5.0%}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
