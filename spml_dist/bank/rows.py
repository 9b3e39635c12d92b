"""Rows of the bank as plain records: made from segments, sent as bytes, digested, read as candidates."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from spml_dist.hashing import image_check, image_hash
from spml_dist.method.extent import in_image
from spml_dist.records import UNLABELLED, BankRows, Batch, BatchImages, Candidates, Segments
from spml_dist.tensor_records import take

STORAGE = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ANNOTATED, PROPAGATED = 1, 2
BITS = 63
"""classes in a word of a tag bitset: int64 without its sign"""

_FIELDS = {
    "image": (torch.int64, 8),
    "check": (torch.int32, 4),
    "segment": (torch.int32, 4),
    "label": (torch.int16, 2),
    "source": (torch.uint8, 1),
    "confidence": (torch.float32, 4),
    "tags_known": (torch.bool, 1),
    "step": (torch.int32, 4),
    "position": (torch.int32, 4),
    "area": (torch.float32, 4),
    "box": (torch.float16, 8),
}
"""fields of one fixed size, and their bytes a row"""


def of_segments(
    segments: Segments,
    images: BatchImages | Batch,
    propagated: Tensor,
    confidence: Tensor,
    step: int,
    storage: str,
) -> BankRows:
    """This rank's segments as rows of the bank; a class of 254 is none.

    images: of this rank; propagated: [P] int64 and confidence: [P] float32 by feature affinity; step: global
    step, from 0; storage: number format of the vectors.
    """
    device, classes = segments.semantic.device, images.tags.shape[1]
    annotated, known = segments.semantic < classes, propagated < classes
    box, area = in_image(segments.box, segments.area, images.window[segments.image])
    first = torch.searchsorted(segments.image, segments.image)
    return BankRows(
        vector=segments.prototype.detach().to(STORAGE[storage]),
        image=image_hash(images.keys, device)[segments.image],
        check=image_check(images.keys, device)[segments.image],
        segment=(torch.arange(len(segments), device=device) - first).int(),
        label=torch.where(known, propagated, -1).short(),
        source=torch.where(annotated, ANNOTATED, torch.where(known, PROPAGATED, 0)).to(torch.uint8),
        confidence=torch.where(known, confidence, 0).float(),
        tags=bitset(images.tags & images.tags_known[:, None])[segments.image],
        tags_known=images.tags_known[segments.image],
        step=torch.full_like(segments.image, step, dtype=torch.int32),
        position=images.position[segments.image].int(),
        area=area.float(),
        box=box.half(),
    )


def as_candidates(rows: BankRows, classes: int, dtype: torch.dtype) -> Candidates:
    """Rows of the bank as a step contrasts with them; their images are those of the bank."""
    known = rows.label >= 0
    return Candidates(
        prototype=rows.vector.to(dtype),
        semantic=torch.where(rows.source == ANNOTATED, rows.label.long(), UNLABELLED),
        tags=from_bitset(rows.tags, classes),
        tags_known=rows.tags_known,
        image=rows.image,
        propagated=torch.where(known, rows.label.long(), UNLABELLED),
    )


def bitset(tags: Tensor) -> Tensor:
    """[N, K] bool → [N, ceil(K / 63)] int64."""
    n, k = tags.shape
    words = -(-k // BITS)
    bits = torch.zeros(n, words * BITS, dtype=torch.int64, device=tags.device)
    bits[:, :k] = tags
    return (bits.view(n, words, BITS) << torch.arange(BITS, device=tags.device)).sum(dim=2)


def from_bitset(words: Tensor, classes: int) -> Tensor:
    """[N, ceil(K / 63)] int64 → [N, K] bool."""
    bits = words.unsqueeze(2) >> torch.arange(BITS, device=words.device) & 1
    return bits.flatten(1)[:, :classes].bool()


def empty(count: int, dim: int, classes: int, storage: str, device=None) -> BankRows:
    """`count` rows of zeros."""
    columns = {name: torch.zeros(count, dtype=dtype, device=device) for name, (dtype, _) in _FIELDS.items()}
    columns["box"] = torch.zeros(count, 4, dtype=torch.float16, device=device)
    columns["tags"] = torch.zeros(count, -(-classes // BITS), dtype=torch.int64, device=device)
    columns["vector"] = torch.zeros(count, dim, dtype=STORAGE[storage], device=device)
    return BankRows(**columns)


def by_identity(rows: BankRows) -> BankRows:
    """By image, then by segment: an order that does not depend on who held the rows."""
    order = torch.argsort(rows.segment, stable=True)
    return take(rows, order[torch.argsort(rows.image[order], stable=True)])


def pack(rows: BankRows) -> Tensor:
    """[N, bytes a row] uint8."""
    return torch.cat([_bytes(getattr(rows, f.name)) for f in fields(BankRows)], dim=1)


def unpack(packed: Tensor, dim: int, classes: int, storage: str) -> BankRows:
    """What `pack` was given."""
    words = -(-classes // BITS)
    sizes: dict[str, tuple[torch.dtype, int, tuple[int, ...]]]
    sizes = {name: (dtype, size, ()) for name, (dtype, size) in _FIELDS.items()}
    sizes |= {"box": (torch.float16, 8, (4,)), "tags": (torch.int64, 8 * words, (words,))}
    sizes["vector"] = (STORAGE[storage], dim * STORAGE[storage].itemsize, (dim,))
    values, at = {}, 0
    for name in (f.name for f in fields(BankRows)):
        dtype, size, shape = sizes[name]
        part = packed[:, at : at + size].flatten().clone().view(dtype)  # a copy starts where its type may
        values[name] = part.view(len(packed), *shape)
        at += size
    return BankRows(**values)


def digest(rows: BankRows) -> np.ndarray:
    """[2] uint64 that depend on the set of rows alone; the digest of a union of disjoint sets is the sum."""
    packed = pack(rows).cpu().numpy()
    padded = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    padded[:, : packed.shape[1]] = packed
    words = padded.view(np.uint64)
    totals = []
    for start in (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03):
        each = np.full(len(words), start, np.uint64)
        for column in words.T:
            each = _mixed(each ^ column)
        totals.append(each.sum(dtype=np.uint64))
    return np.array(totals, np.uint64)


def written(digests: np.ndarray) -> str:
    """A digest as people compare it: 32 hexadecimal digits."""
    return "".join(f"{int(each):016x}" for each in digests)


def _bytes(value: Tensor) -> Tensor:
    width = value.element_size() * (value.shape[1] if value.ndim > 1 else 1)
    return value.contiguous().flatten().view(torch.uint8).view(len(value), width)


def _mixed(x: np.ndarray) -> np.ndarray:
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)
