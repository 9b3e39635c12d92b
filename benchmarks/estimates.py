"""What drawing rows costs: `python -m benchmarks.estimates [--snapshot BANK] --json OUT`.

The loss of a step and its gradient with the candidates of `nearest+sampled`, for growing numbers of rows
drawn, beside those of all rows of the same bank (`exact`). For comparison the last two steps' rows
(`recent`), the nearest alone (`nearest`), and as many as `nearest+sampled` has, all of them drawn (`drawn`).
Every relation by itself, through the step's own functions; concentrations, and how the nearest are sought,
are those of configs/quickstart.yaml, with exact search.

The step is the newest of the rows, one pixel a segment, which is its segment's vector; the bank holds the
rows of all steps before. --snapshot takes them from the bank folder of a checkpoint. Otherwise they are made:
64 steps of 8 images of 16 segments; an image shows one to four of 15 classes, which are its tags, the rarer
ones less often; a segment is a noisy copy (cosine 0.8 on average) of one of the three directions of a class
of its image; a tenth of the segments is annotated, half of the others has its class propagated.

In shares of the exact loss, and of the norm of the exact gradient to all pixels: `loss_bias`, how far the
mean over the draws is off, and its standard error (`loss_error`); `gradient_bias`, how far the mean gradient
is off, less what so few draws leave by chance (`gradient_error`, taken off in squares); `loss_sd` and
`gradient_sd`, how far a draw is from the mean. The gradient is the one before vectors are brought to length
one, which is what reaches the network.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from spml_dist.bank.recent import RecentBank
from spml_dist.bank.rows import ANNOTATED, PROPAGATED, as_candidates, bitset, by_identity
from spml_dist.bank.sharded import LookupPlan, ShardedBank
from spml_dist.bank.snapshot import read_shards
from spml_dist.bank.snapshot_manifest import read_manifest
from spml_dist.bank.statistics import RECENT
from spml_dist.config import Config, load
from spml_dist.hashing import image_check, image_hash
from spml_dist.method.relational_loss import across_images, denominators
from spml_dist.progress import progress_bar
from spml_dist.records import (
    BankCandidates,
    BankRows,
    BatchImages,
    BatchSegments,
    Candidates,
    Pixels,
    Segments,
)
from spml_dist.tensor_records import concatenate, take
from spml_dist.training import run_bank

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
RELATIONS = ("annotation", "cooccurrence", "feature_affinity")
STEPS, IMAGES, SEGMENTS, DIM, CLASSES, MODES = 64, 8, 16, 32, 15, 3
MOST_TAGS, COSINE, ANNOTATED_SHARE, PROPAGATED_SHARE = 4, 0.8, 0.1, 0.5
COLUMNS = ("relation", "way", "candidates", "loss bias", "loss sd", "gradient bias", "gradient sd")

Recall = Callable[[Candidates, int], BankCandidates]
"""a bank's answer to a step's segments, and the step"""
RelationValues = dict[str, tuple[float, Tensor]]
"""by relation: loss and gradient, [n, C]"""


@dataclass(frozen=True)
class Met:
    """A step, and the rows of the bank that it meets."""

    held: BankRows
    classes: int
    segments: BatchSegments
    """of the step"""


@dataclass(frozen=True)
class Estimate:
    """What a way to choose candidates makes of a relation; the last six in shares of the exact."""

    relation: str
    way: str
    sampled: int | None
    """rows that are asked to be drawn"""
    candidates: float
    """rows of the bank that a step contrasts with, mean over the draws"""
    draws: int
    exact: float
    """the exact loss"""
    loss_bias: float
    loss_error: float
    loss_sd: float
    gradient_bias: float
    gradient_error: float
    gradient_sd: float


def clustered(seed: int = 0, steps: int = STEPS) -> BankRows:
    """Rows of noisy directions, as described above; the first of them the oldest."""
    g = torch.Generator().manual_seed(seed)
    images, n = steps * IMAGES, steps * IMAGES * SEGMENTS
    frequency = 1 / torch.arange(1.0, CLASSES + 1)
    shown = torch.multinomial(frequency.expand(images, -1), MOST_TAGS, generator=g)
    number = torch.randint(1, MOST_TAGS + 1, (images,), generator=g)
    tags = torch.zeros(images, CLASSES, dtype=torch.bool)
    tags.scatter_(1, shown, torch.arange(MOST_TAGS) < number[:, None])
    image = torch.arange(n) // SEGMENTS
    label = shown[image, (torch.rand(n, generator=g) * number[image]).long()]
    directions = normalize(torch.randn(CLASSES, MODES, DIM, generator=g), dim=2)
    vector = directions[label, torch.randint(MODES, (n,), generator=g)]
    noise = torch.randn(n, DIM, generator=g) * ((COSINE**-2 - 1) / DIM) ** 0.5
    annotated = torch.rand(n, generator=g) < ANNOTATED_SHARE
    known = annotated | (torch.rand(n, generator=g) < PROPAGATED_SHARE)
    keys = [f"{number:06d}" for number in range(images)]
    return BankRows(
        vector=normalize(vector + noise, dim=1),
        image=image_hash(keys)[image],
        check=image_check(keys)[image],
        segment=(torch.arange(n) % SEGMENTS).int(),
        label=torch.where(known, label, -1).short(),
        source=torch.where(annotated, ANNOTATED, torch.where(known, PROPAGATED, 0)).to(torch.uint8),
        confidence=known.float(),
        tags=bitset(tags)[image],
        tags_known=torch.ones(n, dtype=torch.bool),
        step=(image // IMAGES).int(),
        position=(image % IMAGES).int(),
        area=torch.full((n,), 1 / SEGMENTS),
        box=torch.zeros(n, 4, dtype=torch.float16),
    )


def real(folder: Path) -> Met:
    """A snapshot's newest step, and its rows of the steps before."""
    return met(concatenate(list(read_shards(folder))), len(read_manifest(folder).classes))


def met(rows: BankRows, classes: int) -> Met:
    """The newest step of some rows, and the others as what it meets."""
    rows = replace(rows, vector=rows.vector.float())
    newest = rows.step == rows.step.max()
    made = by_identity(take(rows, newest))
    ours = as_candidates(made, classes, torch.float32)
    images, image = torch.unique(made.image, return_inverse=True)
    first = torch.searchsorted(made.image, images)
    vector, itself, region = ours.prototype, torch.arange(len(made)), torch.zeros_like(image)
    pixels = Pixels(vector, vector, ours.semantic, region, itself, image)
    segments = Segments(vector, vector, ours.semantic, region, image, made.box.float(), made.area)
    batch = BatchImages(
        keys=tuple(map(str, images.tolist())),
        position=torch.arange(len(images)),
        tags=ours.tags[first],
        tags_known=ours.tags_known[first],
        window=torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(images), 4),
    )
    step = BatchSegments(pixels, segments, batch, ours, 0, made.confidence)
    return Met(take(rows, ~newest), classes, step)


def estimates(case: Met, sampled: Sequence[int], draws: int, seed: int = 0) -> list[Estimate]:
    """Every way to choose candidates, for each relation that a pixel takes part in.

    sampled: numbers of rows to draw; draws: how often, each in a step of its own.
    """
    plan = run_bank.lookup_plan(load(CONFIG))
    every_row = _bank(case, "exact", plan, seed)(case.segments.candidates, 0)
    exact = {
        relation: value
        for relation, value in _losses(case, every_row).items()
        if value[0] and (relation != "feature_affinity" or (case.held.source == PROPAGATED).any())
    }

    def compared(way: str, recall: Recall, steps: range, count: int | None = None) -> list[Estimate]:
        return _compared(case, exact, way, count, recall, steps)

    found = compared("recent", _recent(case), range(1))
    found += compared("nearest", _bank(case, "nearest", plan, seed), range(draws))
    near = round(found[-1].candidates)
    for count in progress_bar(sampled, "numbers of rows", unit="numbers"):
        for way, chosen, some in (
            ("nearest+sampled", plan, count),
            ("drawn", replace(plan, kinds=()), near + count),
        ):
            found += compared(way, _bank(case, "nearest+sampled", chosen, seed, some), range(draws), some)
    return sorted(found, key=lambda estimate: RELATIONS.index(estimate.relation))


def _bank(case: Met, candidates: str, plan: LookupPlan, seed: int, sampled: int = 1) -> Recall:
    """A bank that remembers the rows and compares them all."""
    rows = len(case.held)
    changes = {"candidates": candidates, "sampled": sampled, "storage": "float32"}
    changes |= {"capacity": rows, "partitions": 1, "exact_rows": rows}
    settings = load(CONFIG).bank.model_copy(update=changes)
    dim = case.held.vector.shape[1]
    bank = ShardedBank(settings, dim, case.classes, plan, seed, torch.device("cpu"))
    bank.add(case.held, ())
    return bank.candidates


def _recent(case: Met) -> Recall:
    bank = RecentBank(RECENT)
    for step in case.held.step.unique()[-RECENT:]:
        rows = take(case.held, case.held.step == step)
        bank.add(as_candidates(rows, case.classes, torch.float32))
    return bank.candidates


def _losses(case: Met, answer: BankCandidates) -> RelationValues:
    """What the step comes to with a bank's answer."""
    values = {}
    for relation in RELATIONS:
        config = _alone(relation)
        vector = case.segments.candidates.prototype.clone().requires_grad_()
        pixels = replace(case.segments.pixels, embedding=normalize(vector, dim=1))
        step = replace(case.segments, pixels=pixels)
        counts = denominators(step, config.relations, config.loss).float()[1:]
        loss = across_images(step, answer, config.relations, config.loss, counts).loss
        loss.backward()
        values[relation] = loss.item(), vector.grad
    return values


@cache
def _alone(relation: str) -> Config:
    return load(CONFIG, [f"relations.{each}.weight={int(each == relation)}" for each in RELATIONS])


def _compared(
    case: Met, exact: RelationValues, way: str, sampled: int | None, recall: Recall, steps: range
) -> list[Estimate]:
    """A way to choose candidates beside the exact ones."""
    candidates, values = [], []
    for step in steps:
        answer = recall(case.segments.candidates, step)
        candidates.append(len(answer.rows))
        values.append(_losses(case, answer))
    mean = sum(candidates) / len(steps)
    found = []
    for relation, (loss, gradient) in exact.items():
        losses = torch.tensor([each[relation][0] for each in values], dtype=torch.float64)
        gradients = torch.stack([each[relation][1].flatten() for each in values]).double()
        off, error, sd = _off(losses[:, None] / loss - 1)
        about_loss = (off.item(), error, sd)
        off, error, sd = _off((gradients - gradient.flatten()) / gradient.double().norm())
        about_gradient = (max(0.0, off.square().sum().item() - error**2) ** 0.5, error, sd)
        found.append(Estimate(relation, way, sampled, mean, len(steps), loss, *about_loss, *about_gradient))
    return found


def _off(errors: Tensor) -> tuple[Tensor, float, float]:
    """Mean of D vectors, [D, N], its standard error, and their standard deviation; 0 of one vector alone."""
    sd = errors.var(dim=0).sum().sqrt().item() if len(errors) > 1 else 0.0
    return errors.mean(dim=0), sd / len(errors) ** 0.5, sd


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimates", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the estimates here")
    parser.add_argument("--snapshot", type=Path, metavar="BANK", help="the bank folder of a checkpoint")
    parser.add_argument("--sampled", default="64,256,1024,4096", help="numbers of rows to draw")
    parser.add_argument("--draws", type=int, default=100)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    case = real(args.snapshot) if args.snapshot else met(clustered(), CLASSES)
    about = {
        "data": "real" if args.snapshot else "clustered",
        "rows": len(case.held),
        "segments": len(case.segments.candidates),
        "annotated": int((case.segments.candidates.semantic < case.classes).sum()),
        "images": len(case.segments.images.keys),
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    found = estimates(case, [int(count) for count in args.sampled.split(",")], args.draws)
    print("\n".join(table(found)))
    if args.json:
        args.json.write_text(json.dumps([about | asdict(each) for each in found], indent=2) + "\n")
    return 0


def table(found: Sequence[Estimate]) -> list[str]:
    """Lines for people."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|" + "---:|" * (len(COLUMNS) - 2)]
    for each in found:
        bias = f"{100 * each.loss_bias:+.1f} ± {100 * each.loss_error:.1f} %"
        percent = [f"{100 * v:.1f} %" for v in (each.loss_sd, each.gradient_bias, each.gradient_sd)]
        cells = [each.relation, each.way, f"{each.candidates:.0f}", bias, *percent]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
