"""A step's parts measured on one GPU: `python -m benchmarks.gpu --json OUT`; `benchmarks/gpu.sh` runs it.

The sizes of `benchmarks.launches` as one rank alone: the candidates that other ranks would send stand in its
bank, without gradient. Medians of several steps by the device's own clock, under each of the loss's options;
how far the fused kernels are from the tiled loss; peak memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.launches import CLASSES, CONFIG, SIZES, Size
from spml_dist.config import Config, load

VARIANTS = {
    "fused": [],
    "fused, tf32": ["engine.tf32=all"],
    "fused, bfloat16": ["loss.products=bfloat16"],
    "fused, 8 pixels of a segment": ["loss.pixels_per_segment=8"],
    "tiled": ["loss.fused=false"],
}
PARTS = ("network", "segments", "bank", "loss", "backward")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the measurements here")
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument(
        "--steps", type=int, default=8, help="of each variant, the first of which is not counted"
    )
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print(
            "benchmarks.gpu: torch sees no GPU here; benchmarks.launches counts without one", file=sys.stderr
        )
        return 2
    facts = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "sizes": {}}
    for name in args.size:
        size = alone(SIZES[name])
        rows = facts["sizes"][name] = {}
        for variant, words in VARIANTS.items():
            rows[variant] = measured(size, load(CONFIG, words), args.steps)
            cells = (f"{part} {rows[variant]['ms'][part]:.1f}" for part in PARTS)
            print(f"{name}, {variant}: {', '.join(cells)} ms; {rows[variant]['peak_gb']:.1f} GB", flush=True)
        rows["difference"] = difference(size)
        print(
            f"{name}: fused beside tiled, worst difference ÷ largest value: {rows['difference']}", flush=True
        )
        if args.json:
            args.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


def alone(size: Size) -> Size:
    """One rank, with what the others would send in its bank."""
    return replace(size, world=1, bank=size.bank + (size.world - 1) * size.images * size.segments)


def measured(size: Size, config: Config, steps: int) -> dict:
    """Median milliseconds of each part, and the peak of memory."""
    from spml_dist.model import segmenter
    from spml_dist.training.build import PRECISION
    from spml_dist.training.device import settle

    settle(config.engine, torch.device("cuda", 0))
    dtype = PRECISION[config.engine.precision]
    settings = config.model.model_copy(update={"weights": None, "pretrained": False})
    model = segmenter.build(settings, CLASSES, 0).to("cuda", dtype)
    batch, bank = batch_of(size), Rows(size.bank, config.model.embedding_dim)
    torch.cuda.reset_peak_memory_stats()
    laps = [dict(_lap(model, batch, bank, config, dtype, number)) for number in range(steps)][1:]
    model.zero_grad()
    return {
        "ms": {part: statistics.median(lap[part] for lap in laps) for part in PARTS},
        "peak_gb": torch.cuda.max_memory_allocated() / 2**30,
    }


def _lap(model, batch, bank, config: Config, dtype, number: int) -> Iterator[tuple[str, float]]:
    from spml_dist.method.step import losses

    marks = [_mark()]
    images = batch.image.to(dtype, memory_format=torch.channels_last)
    raw, logits = model(images, range(len(batch)))
    marks.append(_mark())
    done = losses(raw, logits, batch, bank, number, config, phase=lambda name: marks.append(_mark()))
    done.total.backward()
    marks.append(_mark())
    marks[-1].synchronize()
    # After the network: segments end, bank ends, relations and cross-entropy end, backward ends.
    for part, before, after in zip(PARTS, marks, marks[1:], strict=False):
        yield part, before.elapsed_time(after)


def _mark():
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def batch_of(size: Size):
    """Random labels in blocks, as many as the size says."""
    from spml_dist.records import UNLABELLED, Batch

    g = torch.Generator().manual_seed(0)
    images, crop = size.images, size.crop
    side = round(size.regions**0.5)
    cell = torch.arange(crop) * side // crop
    regions = (cell[:, None] * side + cell[None, :]).int().expand(images, -1, -1)
    classes = torch.randint(CLASSES, (images, crop, crop), generator=g)
    labelled = torch.rand(images, crop, crop, generator=g) < size.labelled
    tags = torch.rand(images, CLASSES, generator=g) < 0.1
    batch = Batch(
        keys=tuple(f"image {number}" for number in range(images)),
        position=torch.arange(images),
        image=torch.randn(images, 3, crop, crop, generator=g),
        semantic=torch.where(labelled, classes, UNLABELLED).to(torch.uint8),
        regions=regions.contiguous(),
        tags=tags,
        tags_known=tags.any(dim=1),
        window=torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(images, -1).contiguous(),
        epoch=0,
    )
    from spml_dist.tensor_records import moved

    return moved(batch, torch.device("cuda"))


class Rows:
    """A bank of random rows that never change."""

    def __init__(self, count: int, dim: int):
        from spml_dist.records import BankCandidates, Candidates

        g = torch.Generator("cuda").manual_seed(1)
        vectors = torch.nn.functional.normalize(torch.randn(count, dim, generator=g, device="cuda"), dim=1)
        label = torch.randint(CLASSES, (count,), generator=g, device="cuda")
        tags = torch.rand(count, CLASSES, generator=g, device="cuda") < 0.1
        self._rows = BankCandidates(Candidates(vectors, label, tags, tags.any(dim=1), label, label))

    def candidates(self, segments, step: int, measure: bool = False):
        return self._rows


def difference(size: Size) -> dict[str, float]:
    """Loss and gradient to the pixels by the kernels, beside those by the tiles: in each number format the
    worst difference over the largest value."""
    from spml_dist.method.step import losses
    from spml_dist.training.device import settle

    g = torch.Generator("cuda").manual_seed(2)
    batch, side = batch_of(size), size.crop // 4
    raw = torch.randn(size.images, 64, side, side, generator=g, device="cuda")
    logits = torch.randn(size.images, CLASSES, side, side, generator=g, device="cuda")
    results = {}
    for name in ("tiled", "fused", "fused, tf32", "fused, bfloat16"):
        config = load(CONFIG, [*VARIANTS[name], "engine.deterministic=true"])
        settle(config.engine, torch.device("cuda", 0))
        leaf = raw.clone().requires_grad_()
        total = losses(leaf, logits, batch, Rows(size.bank, 64), 0, config).total
        total.backward()
        results[name] = (total.detach(), leaf.grad)
    loss, gradient = results.pop("tiled")
    worst = {}
    for name, (ours, of_raw) in results.items():
        worst[f"{name}: loss"] = float((ours - loss).abs() / loss.abs())
        worst[f"{name}: gradient"] = float((of_raw - gradient).abs().max() / gradient.abs().max())
    return worst


if __name__ == "__main__":
    sys.exit(main())
