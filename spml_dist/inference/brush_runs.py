"""A mask in the run lengths of Label Studio's brush: @thi.ng/rle-pack over the bytes of an RGBA picture."""

from __future__ import annotations

import numpy as np

from spml_dist.errors import DataError

SIZES = (3, 4, 8, 16)
"""bits of a run's length, of which each run takes the fewest"""
CHANNELS = 4
LARGEST = (1 << 32) // CHANNELS
"""pixels: their number of bytes is written in 32 bits"""


def encode(mask: np.ndarray) -> list[int]:
    """Bytes of a mask, [H, W] bool: 255 in all channels of its pixels, 0 elsewhere.

    A header (number of values in 32 bits, their width less one in 5, each of SIZES less one in 4), then for
    each run a 1, the place of its length's width in SIZES in 2 bits, the length less one, and the value.
    Raises DataError for a mask of more pixels than LARGEST.
    """
    if mask.size >= LARGEST:
        raise DataError("labelstudio: more pixels than a brush can hold", mask.size, "use another --format")
    header = [(mask.size * CHANNELS, 32), (8 - 1, 5), *((size - 1, 4) for size in SIZES)]
    values, lengths = _runs(mask.ravel())
    kind = np.searchsorted([1 << size for size in SIZES], lengths)
    fields = [_bits(*each) for each in header]
    for value, length, place in zip(values.tolist(), lengths.tolist(), kind.tolist(), strict=True):
        fields.append(f"1{_bits(place, 2)}{_bits(length - 1, SIZES[place])}{_bits(255 * value, 8)}")
    digits = np.frombuffer("".join(fields).encode("ascii"), np.uint8)
    return np.packbits(digits - ord("0")).tolist()


def _runs(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and lengths, in bytes, of the runs of [n] bool, none longer than the widest length holds."""
    starts = np.flatnonzero(np.diff(pixels, prepend=~pixels[:1]))
    lengths = np.diff(starts, append=len(pixels)) * CHANNELS
    most = 1 << SIZES[-1]
    pieces = -(-lengths // most)
    values, whole = np.repeat(pixels[starts], pieces), np.full(pieces.sum(), most)
    whole[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * most
    return values, whole


def _bits(value: int, width: int) -> str:
    return f"{value:0{width}b}"
