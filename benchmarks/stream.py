"""The stream beside a plain loop over the same samples: `python -m benchmarks.stream --json OUT`.

Both read, decode and augment 512×512 images with their labels (JPEGs of about 100 kB, crops of 512 pixels,
global batches of 16) with as many processes. The plain loop is those processes alone: each takes its share of
the draws and drops what it makes; nothing is collated, handed over or kept in order. `kept` is that loop with
the stream's memory setting: an image's memory is kept for the next one, so that it shows what handing over
batches costs. `bare` only reads and decodes. All take turns; a ratio is the median over the turns, and above
one the stream is the faster.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from PIL import Image

from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.generated.sample import LABELS, generated
from spml_dist.data.generated.scenes import BACKGROUND, CLASSES
from spml_dist.data.pack.pack import pack
from spml_dist.records import Sample

SCENES, COPIES, SIDE, QUALITY, SHARD = 12, 16, 512, 92, 32
CROP, BATCH, SCALE, SEED, WINDOW = 512, 16, (0.5, 1.5), 0, 16


def samples() -> Iterator[Sample]:
    """A few scenes under many keys: scenes of this size take long to draw."""
    scenes = list(generated("train", SCENES, size=SIDE))
    for copy in range(COPIES):
        yield from (replace(scene, key=f"{scene.key}-{copy}") for scene in scenes)


def jpeg(sample: Sample) -> bytes:
    """As cameras write it, with subsampled colours."""
    encoded = io.BytesIO()
    Image.fromarray(sample.image).save(encoded, "JPEG", quality=QUALITY)
    return encoded.getvalue()


class Plain:
    """Processes that loop over their shares of the draws on request."""

    def __init__(self, folder: Path, processes: int, keep: bool):
        context = get_context("spawn")
        self.pipes, self.processes, self.steps = [], [], 0
        for process in range(processes):
            ours, theirs = context.Pipe()
            arguments = (theirs, folder, process, processes, keep)
            self.processes.append(context.Process(target=_loop, args=arguments, daemon=True))
            self.processes[-1].start()
            self.pipes.append(ours)

    def images_per_second(self, steps: int, bare: bool) -> float:
        start = time.perf_counter()
        for pipe in self.pipes:
            pipe.send((self.steps, self.steps + steps, bare))
        for pipe in self.pipes:
            pipe.recv()
        self.steps += steps
        return steps * BATCH / (time.perf_counter() - start)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def _loop(pipe: Connection, folder: Path, process: int, processes: int, keep: bool) -> None:
    from spml_dist.data.stream.augment import augment, rng_for
    from spml_dist.data.stream.loader_process import keep_memory
    from spml_dist.data.stream.plan import Plan
    from spml_dist.data.stream.reader import Reader

    if keep:
        keep_memory()
    manifest = read_manifest(folder)
    plan = Plan([shard.samples for shard in manifest.shards], BATCH, SEED, WINDOW)
    reader = Reader(folder, manifest, masks=False)
    while task := pipe.recv():
        first, stop, bare = task
        for step in range(first, stop):
            for draw in plan.part(step, process, processes):
                sample = reader.read(draw.shard, draw.index)
                if not bare:
                    rng = rng_for(SEED, draw.epoch, sample.key)
                    augment(
                        sample.image, (sample.semantic, sample.regions), rng, (CROP, CROP), SCALE, mirror=True
                    )
        pipe.send("done")


class Streaming:
    """The stream, taken as fast as it comes."""

    def __init__(self, folder: Path, processes: int):
        from spml_dist.data.stream.loader import Stream

        self.ahead = 3 * processes  # batches that may lie ready
        self.steps = iter(
            Stream(
                folder,
                num_classes=len(CLASSES),
                batch=BATCH,
                crop=CROP,
                scale=SCALE,
                mirror=True,
                window_shards=WINDOW,
                seed=SEED,
                loader_processes=processes,
            )
        )

    def images_per_second(self, steps: int) -> float:
        for _ in range(self.ahead):
            next(self.steps)
        start = time.perf_counter()
        for _ in range(steps):
            next(self.steps)
        return steps * BATCH / (time.perf_counter() - start)

    def close(self) -> None:
        self.steps.close()


def measure(folder: Path, processes: int, steps: int, repetitions: int) -> dict[str, list[float]]:
    """Images per second of each way, a value a turn; the first turn, which starts everything, is left out."""
    stream = Streaming(folder, processes)
    plain, kept = (Plain(folder, processes, keep) for keep in (False, True))
    rates: dict[str, list[float]] = {"stream": [], "plain": [], "kept": [], "bare": []}
    for turn in range(repetitions + 1):
        found = {
            "plain": plain.images_per_second(steps, bare=False),
            "stream": stream.images_per_second(steps),
        }
        time.sleep(1)  # the stream fills up again; the next is measured alone
        found["kept"] = kept.images_per_second(steps, bare=False)
        found["bare"] = plain.images_per_second(steps, bare=True)
        if turn:
            for name, rate in found.items():
                rates[name].append(rate)
            print("  ".join(f"{name} {rates[name][-1]:7.1f}" for name in rates), flush=True)
    for way in (plain, kept, stream):
        way.close()
    return rates


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--processes", type=int, default=2, help="of the stream, and of the plain loop")
    parser.add_argument("--steps", type=int, default=24, help=f"batches of {BATCH} images a turn")
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        print("drawing and packing scenes", flush=True)
        about = {"split": "train", "labels": LABELS, "classes": CLASSES, "background": BACKGROUND}
        manifest = pack(samples(), folder, "scenes", **about, shard_size=SHARD, jpeg=jpeg)
        print(f"images per second with {args.processes} processes", flush=True)
        rates = measure(Path(folder), args.processes, args.steps, args.repetitions)
    result = {
        "processes": args.processes,
        "images": BATCH * args.steps,
        "crop": CROP,
        "kb_per_sample": sum(shard.bytes for shard in manifest.shards) / manifest.samples / 1e3,
        **{f"{name}_images_per_s": statistics.median(values) for name, values in rates.items()},
        "ratio": _ratio(rates, "plain"),
        "ratio_kept": _ratio(rates, "kept"),
        "ratio_bare": _ratio(rates, "bare"),
    }
    for name, other in (
        ("ratio", "plain loop"),
        ("ratio_kept", "kept loop"),
        ("ratio_bare", "bare decoding"),
    ):
        print(f"stream ÷ {other:<14} {result[name]:.2f}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _ratio(rates: dict[str, list[float]], other: str) -> float:
    return statistics.median(a / b for a, b in zip(rates["stream"], rates[other], strict=True))


if __name__ == "__main__":
    sys.exit(main())
