"""The tiled loss beside the dense formula, time and memory: `python -m benchmarks.loss_path --json OUT`.

Annotation and co-occurrence together, forward and backward to pixels and prototypes: 54,056 pixels of 64
dimensions, 254 segments of this step, and 777, 2,362 and 8,686 candidates in all (64 an image, every
image with tags of its own). Each measurement is the median of several repetitions in a fresh process;
memory is the process's peak above what it held before the first repetition.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

PIXELS, DIMENSIONS, CURRENT, CLASSES, TAGS, PER_IMAGE = 54_056, 64, 254, 21, 20, 64
CANDIDATES = (777, 2_362, 8_686)
KAPPA = {"annotation": 6.0, "cooccurrence": 12.0}


def problem(candidates: int):
    """Seeded unit vectors in clusters, labels, tags and own segments."""
    import torch
    from torch.nn.functional import normalize

    g = torch.Generator().manual_seed(candidates)
    prototype = normalize(torch.randn(candidates, DIMENSIONS, generator=g) + 0.5, dim=1)
    own = torch.arange(PIXELS) * CURRENT // PIXELS
    noise = torch.randn(PIXELS, DIMENSIONS, generator=g)
    embedding = normalize(prototype[own] + 0.1 * noise, dim=1)
    label = torch.randint(CLASSES, (candidates,), generator=g)
    image = torch.arange(candidates) // PER_IMAGE
    tags = torch.rand(int(image.max()) + 1, TAGS, generator=g) < 0.1
    tags[:, 0] |= ~tags.any(dim=1)
    return embedding, prototype, own, label, image, tags


def tiled(candidates: int):
    import torch

    from spml_dist.method.loss import contrast
    from spml_dist.records import Block, Relation

    embedding, prototype, own, label, image, tags = problem(candidates)
    classes = torch.arange(CLASSES)

    def step():
        e, p = embedding.clone().requires_grad_(), prototype.clone().requires_grad_()
        same = classes[:, None] == label[None]
        shared = (tags.float() @ tags.float().T > 0)[:, image]
        relations = (
            Relation(label[own], same, ~same, KAPPA["annotation"]),
            Relation(image[own], shared, ~shared, KAPPA["cooccurrence"]),
        )
        whole = Block(slice(0, PIXELS), slice(0, candidates), relations, (1 / PIXELS, 1 / PIXELS))
        result = contrast(e, p, own, [whole], (1.0, 1.0), constants=candidates - CURRENT)
        result.loss.backward()
        return result.loss.item(), e.grad, p.grad[:CURRENT]

    return step


def dense(candidates: int):
    import torch

    embedding, prototype, own, label, image, tags = problem(candidates)

    def step():
        e, p = embedding.clone().requires_grad_(), prototype[:CURRENT].clone().requires_grad_()
        everything = torch.cat([p, prototype[CURRENT:]])
        itself = torch.zeros(PIXELS, candidates, dtype=torch.bool).scatter_(1, own[:, None], True)
        shared = tags.float() @ tags.float().T > 0
        loss = 0
        for kappa, attract in (
            (KAPPA["annotation"], label[own][:, None] == label[None]),
            (KAPPA["cooccurrence"], shared[image[own]][:, image]),
        ):
            similarity = torch.exp(kappa * (e @ everything.T))
            positive = (similarity * (attract & ~itself)).sum(dim=1)
            negative = (similarity * ~attract).sum(dim=1)
            alone = (attract & ~itself).sum(dim=1) == 0
            numerator = torch.where(alone, (similarity * itself).sum(dim=1), positive)
            loss = loss - torch.log(numerator / (numerator + negative)).mean()
        loss.backward()
        return loss.item(), e.grad, p.grad

    return step


def measure(kind: str, candidates: int, repetitions: int) -> dict:
    """Run in this process: median seconds, peak megabytes above the start, and the loss."""
    import psutil
    import torch

    torch.set_num_threads(2)
    step = {"tiled": tiled, "dense": dense}[kind](candidates)
    torch.ones(512, 512) @ torch.ones(512, 512)  # the product's own threads and buffers
    process, peak, running = psutil.Process(), [0], True
    before = process.memory_info().rss

    def watch():
        while running:
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        loss, *grads = step()
        times.append(time.perf_counter() - start)
    running = False
    watcher.join()
    norms = [float(g.norm()) for g in grads]
    return {
        "seconds": statistics.median(times),
        "mb": (peak[0] - before) / 2**20,
        "loss": loss,
        "grad_norms": norms,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loss_path", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--dense-limit", type=int, default=2_362, help="no dense run above so many candidates"
    )
    parser.add_argument("--one", nargs=2, metavar=("KIND", "CANDIDATES"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]), args.repetitions)))
        return 0
    columns = ("candidates", "tiled_s", "dense_s", "ratio_time", "tiled_mb", "dense_mb", "ratio_memory")
    print("  ".join(f"{name:>12}" for name in columns))
    rows = []
    for candidates in CANDIDATES:
        fast = _fresh("tiled", candidates, args.repetitions)
        slow = _fresh("dense", candidates, args.repetitions) if candidates <= args.dense_limit else None
        rows.append(_row(candidates, fast, slow))
        cells = (rows[-1][name] for name in columns)
        print("  ".join(f"{'-' if v is None else round(v, 2):>12}" for v in cells), flush=True)
    if args.json:
        args.json.write_text(
            json.dumps({"pixels": PIXELS, "dimensions": DIMENSIONS, "threads": 2, "rows": rows}, indent=2)
            + "\n"
        )
    return 0


def _row(candidates: int, fast: dict, slow: dict | None) -> dict:
    row = {"candidates": candidates, "tiled_s": fast["seconds"], "tiled_mb": fast["mb"]}
    names = ("dense_s", "dense_mb", "ratio_time", "ratio_memory", "loss_difference", "grad_norm_difference")
    if slow is None:
        return row | dict.fromkeys(names)
    norms = zip(fast["grad_norms"], slow["grad_norms"], strict=True)
    values = (
        slow["seconds"],
        slow["mb"],
        slow["seconds"] / fast["seconds"],
        slow["mb"] / fast["mb"],
        abs(slow["loss"] - fast["loss"]) / slow["loss"],
        max(abs(ours / theirs - 1) for ours, theirs in norms),
    )
    return row | dict(zip(names, values, strict=True))


def _fresh(kind: str, candidates: int, repetitions: int) -> dict:
    command = [
        sys.executable,
        "-m",
        "benchmarks.loss_path",
        "--repetitions",
        str(repetitions),
        "--one",
        kind,
        str(candidates),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{kind} with {candidates} candidates failed:\n{done.stderr}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
