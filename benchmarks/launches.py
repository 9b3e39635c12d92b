"""What a training step asks of a GPU, counted without one: `python -m benchmarks.launches --json OUT`.

For one rank of the paper's batch (4 GPUs of 4 images) and of a large one (64 of 16), each with all pixels
contrasted and with 4 drawn of each segment, by part of a step: operations, bytes, host reads and where,
copies, collectives and their bytes, peak memory; and the seconds that these mean on an H100 and an H200 by
the rates of `benchmarks.counting`, computed and not measured. --gpus asks for the large one's batch of a GPU
on other numbers of them. Words such as loss.products=bfloat16 change the training.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from benchmarks.counting import GPUS, Counting, Part, backward, counted
from spml_dist.config import Config, load

CONFIG = Path(__file__).parents[1] / "configs" / "voc12_scribble.yaml"
CLASSES = 21


@dataclass(frozen=True)
class Size:
    """A training, seen from one of its ranks."""

    world: int
    images: int
    """of a rank"""
    bank: int
    """rows that the bank adds to a step's candidates"""
    segments: int = 120
    """of an image"""
    regions: int = 40
    """of an image"""
    labelled: float = 0.02
    """share of the pixels with a label"""
    crop: int = 512


SIZES = {
    "paper": Size(world=4, images=4, bank=2 * 16 * 120),
    "large": Size(world=64, images=16, bank=2048),
}


WAYS = {"all pixels": [], "4 pixels of a segment": ["loss.pixels_per_segment=4"]}
"""what each size is counted with"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launches", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the training")
    parser.add_argument("--json", type=Path, help="write the counts here")
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--gpus", nargs="+", type=int, default=[], help="numbers of them instead of --size")
    parser.add_argument(
        "--bank", nargs="+", type=int, default=[], metavar="ROWS", help="of a GPU, searched exactly, instead"
    )
    parser.add_argument("--way", nargs="+", choices=WAYS, default=list(WAYS))
    args = parser.parse_args(argv)
    results: dict[str, dict] = {}
    for rows in args.bank:
        results[f"bank, {rows} rows"] = summary(search(rows, load(CONFIG, args.overrides)))
        print(table(f"bank, {rows:,} rows of a GPU", results[f"bank, {rows} rows"]), flush=True)
    of_gpus = {f"{count} GPUs": replace(SIZES["large"], world=count) for count in args.gpus}
    sizes = of_gpus if args.gpus or args.bank else {name: SIZES[name] for name in args.size}
    for name, size in sizes.items():
        results[name] = {}
        for way in args.way:
            counts = summary(step(size, load(CONFIG, [*WAYS[way], *args.overrides])))
            results[name][way] = counts
            print(table(f"{name}, {way}", counts), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def step(size: Size, config: Config) -> Counting:
    """Count one step: network, losses, backward, optimiser."""
    from spml_dist.method.step import losses
    from spml_dist.training.build import PRECISION
    from spml_dist.training.clipping import Clipping, divided_by_part, is_classifier
    from spml_dist.training.finite_check import FiniteCheck
    from spml_dist.training.optimizer import optimizer_of

    device = torch.device("cuda:0")
    model = network(config)
    with counted(GPUS, answers(size, config), size.world) as counting:
        counting.part, counting.in_range = "making", 1 / size.images
        placed(model, device, PRECISION[config.engine.precision])
        stop = torch.zeros((), device=device)
        watch = FiniteCheck(model, device)
        optimizer = optimizer_of(model, config.optimizer, stop)
        clipping = Clipping(config.optimizer, device)
        batch = batch_of(size, device)
        counting.parts.clear()

        counting.part = "network"
        images = batch.image.to(PRECISION[config.engine.precision], memory_format=torch.channels_last)
        raw, logits = model(images, [0] * size.images)
        of_network, raw, logits = (raw, logits), *(each.detach().requires_grad_() for each in (raw, logits))
        counting.part = "segments"
        parts = iter(("bank", "loss", "loss"))

        def ended(phase: str) -> None:
            counting.part = next(parts)

        done = losses(raw, logits, batch, _Bank(size.bank, device), 0, config, phase=ended)
        counting.part = "finite check"
        watch.observe(done.total)
        counting.part = "loss backward"
        total = done.total
        del done
        backward(total)
        counting.part = "network backward"
        scalar = (of_network[0] * raw.grad).sum() + (of_network[1] * logits.grad).sum()
        del of_network, raw, logits
        backward(scalar)
        counting.part = "optimizer"
        named = model.named_parameters()
        gradients = ((is_classifier(name), p.grad) for name, p in named if p.grad is not None)
        clipping.apply(*divided_by_part(gradients), divided=False)
        watch.agree(0, batch.keys)
        optimizer.step()
        watch.stop_requested()
    return counting


def network(config: Config) -> torch.nn.Module:
    """Without weights, on torch's device `meta`."""
    from spml_dist.model import segmenter

    model = config.model.model_copy(update={"weights": None, "pretrained": False})
    with torch.device("meta"):
        return segmenter.build(model, CLASSES, 0)


def placed(model: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Give a network of `meta` fake weights on a device; `to` cannot."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            value = torch.empty(weight.shape, dtype=dtype, device=device)
            setattr(module, name, torch.nn.Parameter(value, weight.requires_grad))
        for name, value in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(value.shape, dtype=value.dtype, device=device))


def batch_of(size: Size, device: torch.device):
    """A batch as the loop hands it on: on the device."""
    from spml_dist.records import Batch

    images, crop = size.images, size.crop

    def empty(*shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    return Batch(
        keys=tuple(f"image {number}" for number in range(images)),
        position=empty(images, dtype=torch.int64),
        image=empty(images, 3, crop, crop, dtype=torch.float32),
        semantic=empty(images, crop, crop, dtype=torch.uint8),
        regions=empty(images, crop, crop, dtype=torch.int32),
        tags=empty(images, CLASSES, dtype=torch.bool),
        tags_known=empty(images, dtype=torch.bool),
        window=empty(images, 4, dtype=torch.float32),
        epoch=0,
    )


def answers(size: Size, config: Config) -> dict[tuple[str, str], int]:
    """What is read where in a step of this size."""
    labelled = int(size.labelled * size.images * size.crop**2)
    return {
        ("method/segments.py:segment", "unique"): size.images * size.segments,
        ("method/batch_segments.py:exchange", "number"): size.images * size.segments,
        ("method/batch_segments.py:propagate", "number"): size.images * size.segments,
        ("method/cross_entropy.py:cross_entropy", "places"): labelled,
        ("training/finite_check.py:values", "number"): 0,
    }


def search(rows: int, config: Config) -> Counting:
    """Count a rank's exact search of its rows of a bank of the data set, a twentieth of which are annotated:
    for the queries of a step, which have 100 sets of tags and 100 classes; and, where segments vote, for all
    segments of a large step."""
    from spml_dist.bank.search.exact import nearest
    from spml_dist.bank.search.filters import BY_CLASS
    from spml_dist.training.run_bank import lookup_plan

    plan, large = lookup_plan(config), SIZES["large"]
    groups = "bank/search/filters.py:query_groups"
    known = {
        (groups, "unique"): 100,
        ("bank/search/exact.py:_tiles", "places"): 0,
        ("bank/search/exact.py:in_order", "number"): False,
        ("bank/search/exact.py:_undecided", "places"): 0,
    }
    with counted(GPUS, known) as counting:
        counting.part = "making"
        held, slots = _rows(rows, config.model.embedding_dim)
        asked = {"search": (config.bank.queries, plan.kinds)}
        if plan.votes:
            asked["votes"] = large.world * large.images * large.segments, ("labelled",)
        for part, (count, kinds) in asked.items():
            counting.part = "making"
            queries = _queries(count, config.model.embedding_dim)
            counting.part = part
            for by_class in (False, True):  # as `search.lookup`
                these = [kind for kind in kinds if (kind in BY_CLASS) == by_class]
                among = slots[: rows // 20] if by_class else slots
                if these:
                    nearest(held, queries, these, config.bank.neighbours, among)
        del counting.parts["making"]
    return counting


def _rows(count: int, dim: int):
    """What the search reads of a store with so many rows, and their slots."""
    device = torch.device("cuda:0")
    number = torch.empty(count, dtype=torch.int64, device=device)
    rows = SimpleNamespace(
        vector=torch.empty(count, dim, device=device),
        image=number,
        segment=number.int(),
        label=number.short(),
        source=number.to(torch.uint8),
        tags=torch.empty(count, 1, dtype=torch.int64, device=device),
        tags_known=number.bool(),
    )
    return SimpleNamespace(rows=rows), torch.empty_like(number)


def _queries(count: int, dim: int):
    from spml_dist.bank.search.filters import Queries

    device = torch.device("cuda:0")
    number = torch.empty(count, dtype=torch.int64, device=device)
    return Queries(
        torch.empty(count, dim, device=device), number, number.short(), number[:, None], number.bool()
    )


class _Bank:
    """Rows of a bank without the bank, which is counted by itself."""

    def __init__(self, rows: int, device: torch.device):
        self._rows, self._device = rows, device

    def candidates(self, segments, step: int, measure: bool = False):
        from dataclasses import fields

        from spml_dist.records import BankCandidates, Candidates

        columns = (getattr(segments, each.name) for each in fields(Candidates))
        rows = (each.new_empty(self._rows, *each.shape[1:]).detach() for each in columns)
        return BankCandidates(Candidates(*rows))


def summary(counting: Counting) -> dict:
    """Plain data of what was counted."""
    parts = {name: _part(part) for name, part in counting.parts.items()}
    return {"parts": parts, "peak_gb": counting.peak / 2**30, "reads": _reads(counting)}


def _part(part: Part) -> dict:
    return {
        "operations": part.operations,
        "gb": part.bytes / 1e9,
        "tflop": part.flops / 1e12,
        "reads": part.reads.total(),
        "copies": part.copies,
        "collectives": part.collectives,
        "collective_mb": part.collective_bytes / 1e6,
        **{f"ms_{name}": 1e3 * rates.of_part(part, name) for name, rates in GPUS.items()},
    }


def _reads(counting: Counting) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counting.parts.values():
        for place, times in part.reads.items():
            total[place] = total.get(place, 0) + times
    return total


def table(name: str, result: dict) -> str:
    """One size for people."""
    counts = ("operations", "gb", "tflop", "reads", "copies", "collectives", "collective_mb")
    columns = (*counts, *(f"ms_{gpu}" for gpu in GPUS))
    lines = [
        f"{name}: {result['peak_gb']:.1f} GB at most",
        "  ".join(f"{each:>13}" for each in ("", *columns)),
    ]
    for part, row in result["parts"].items():
        lines.append("  ".join([f"{part:>16}", *(f"{row[each]:>13,.5g}" for each in columns)]))
    lines += [f"  read {times}× in {place}" for place, times in sorted(result["reads"].items())]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
