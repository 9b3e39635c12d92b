"""Stable hashes of image keys, and draws that are functions of them: the same in every run and everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def image_hash(keys: Sequence[str], device=None) -> Tensor:
    """[len(keys)] int64: the image of each sample key, the same in every run and on every machine."""
    return torch.tensor([_number(key, 8, b"image") for key in keys], dtype=torch.int64, device=device)


def image_check(keys: Sequence[str], device=None) -> Tensor:
    """[len(keys)] int32: a second, independent hash; two keys that agree in both are taken for one."""
    return torch.tensor([_number(key, 4, b"check") for key in keys], dtype=torch.int32, device=device)


def uniform(seed: int, step: int, image: Tensor, segment: Tensor) -> Tensor:
    """A number in [0, 1) for each row, [N] float64: a function of (seed, step, row) alone.

    image: [N] int64; segment: [N] integer. Shards that draw rows by it need not talk to agree.
    """
    start = _mixed(_mixed(torch.tensor([seed], dtype=torch.int64)) + step).to(image.device)
    return (_mixed(_mixed(image ^ start) + segment) >> 11 & (1 << 53) - 1).double() / (1 << 53)


def _number(key: str, size: int, person: bytes) -> int:
    return int.from_bytes(
        hashlib.blake2b(key.encode(), digest_size=size, person=person).digest(), signed=True
    )


def _mixed(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014) on int64, which wrap around."""
    x = (x ^ x >> 30 & (1 << 34) - 1) * (0xBF58476D1CE4E5B9 - (1 << 64))
    x = (x ^ x >> 27 & (1 << 37) - 1) * (0x94D049BB133111EB - (1 << 64))
    return x ^ x >> 31 & (1 << 33) - 1
