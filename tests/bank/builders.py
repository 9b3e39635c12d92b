"""Rows for tests of the bank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import normalize

from spml_dist.bank.rows import ANNOTATED, STORAGE, bitset, from_bitset, pack
from spml_dist.bank.search.filters import Queries
from spml_dist.hashing import image_check, image_hash
from spml_dist.records import BankRows
from spml_dist.tensor_records import take

CLASSES, DIM = 5, 6


def rows_of(
    keys: Sequence[str],
    segments: Sequence[int],
    step: int = 0,
    seed: int = 0,
    dim: int = DIM,
    classes: int = CLASSES,
    storage: str = "float32",
    coarse: bool = False,
) -> BankRows:
    """Rows of whole images at random: annotated, propagated or neither; tags known or not.

    segments: number of each image's segments; image i is at position i. Vectors are about of length 1, and of
    so few bits that their products are exact in float32, whoever adds them up; coarse: of halves and zeros,
    so that many are alike.
    """
    generator = torch.Generator().manual_seed(seed)
    image = torch.arange(len(keys)).repeat_interleave(torch.tensor(segments, dtype=torch.int64))
    n = len(image)
    vector = (normalize(torch.randn(n, dim, generator=generator), dim=1) * 512).round() / 512
    if coarse:
        places = torch.rand(n, dim, generator=generator).argsort(dim=1)[:, :4]
        signs = torch.randint(0, 2, (n, 4), generator=generator) - 0.5
        vector = torch.zeros(n, dim).scatter_(1, places, signs)
    source = torch.randint(0, 3, (n,), generator=generator)
    label = torch.where(source > 0, torch.randint(0, classes, (n,), generator=generator), -1)
    known = torch.rand(len(keys), generator=generator) < 0.8
    tags = (torch.rand(len(keys), classes, generator=generator) < 0.3) & known[:, None]
    box = torch.rand(n, 2, 2, generator=generator).sort(dim=1).values.flatten(1)
    return BankRows(
        vector=vector.to(STORAGE[storage]),
        image=image_hash(keys)[image],
        check=image_check(keys)[image],
        segment=torch.cat([torch.arange(count) for count in segments]).int() if n else image.int(),
        label=label.short(),
        source=source.to(torch.uint8),
        confidence=torch.where(source == 2, 0.75, (source == 1).float()),
        tags=bitset(tags)[image],
        tags_known=known[image],
        step=torch.full((n,), step, dtype=torch.int32),
        position=image.int(),
        area=torch.rand(n, generator=generator),
        box=box.half(),
    )


def shuffled(rows: BankRows, seed: int) -> BankRows:
    """The same rows in another order."""
    return take(rows, torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)))


def contents(rows: BankRows) -> set[bytes]:
    """Every row, bit by bit."""
    return {bytes(row) for row in pack(rows).numpy()}


def queries_of(rows: BankRows) -> Queries:
    """The rows as segments that ask, by their annotated classes."""
    label = torch.where(rows.source == ANNOTATED, rows.label, -1).short()
    return Queries(rows.vector.float(), rows.image, label, rows.tags, rows.tags_known)


def may_answer(kind: str, queries: Queries, rows: BankRows, classes: int = CLASSES) -> np.ndarray:
    """[Q, n] bool: which rows pass for which queries, one pair after another; the own image's do not."""
    asked, held = (
        [set(row.nonzero()[:, 0].tolist()) for row in from_bitset(each.tags, classes)]
        for each in (queries, rows)
    )
    passes = np.zeros((len(queries), len(rows)), bool)
    for q in range(len(queries)):
        own, known = int(queries.label[q]), bool(queries.tags_known[q])
        for r in range(len(rows)):
            label = int(rows.label[r]) if rows.source[r] == ANNOTATED else -1
            passes[q, r] = (
                queries.image[q] != rows.image[r]
                and {
                    "any": True,
                    "labelled": label >= 0,
                    "same_class": own >= 0 and label == own,
                    "other_class": own >= 0 and label not in (-1, own),
                    "shares_tag": known and bool(asked[q] & held[r]),
                    "shares_none": known and bool(rows.tags_known[r]) and not asked[q] & held[r],
                }[kind]
            )
    return passes


def brute_force(
    kind: str, queries: Queries, rows: BankRows, k: int, classes: int = CLASSES
) -> list[list[tuple[int, int]]]:
    """(image, segment) of the k nearest rows of each query, in float64, equal ones by identity."""
    passes = may_answer(kind, queries, rows, classes)
    cosine = queries.vector.double().numpy() @ rows.vector.double().numpy().T
    names = list(zip(rows.image.tolist(), rows.segment.tolist(), strict=True))
    return [
        [
            names[r]
            for r in sorted(np.flatnonzero(passes[q]), key=lambda r, q=q: (-cosine[q, r], names[r]))[:k]
        ]
        for q in range(len(queries))
    ]
