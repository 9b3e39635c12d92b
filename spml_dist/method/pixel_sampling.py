"""A few pixels of each segment instead of all: the same loss on average, for less arithmetic."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spml_dist.hashing import uniform
from spml_dist.records import Pixels
from spml_dist.tensor_records import take


def sample_pixels(pixels: Pixels, segments: int, most: int, position: Tensor, seed: int, step: int) -> Pixels:
    """At most some pixels of each segment, drawn anew each step, in their order.

    segments: how many there are; most: pixels of a segment that are drawn, at least 1; position: [B] int64,
    place of each image in the global batch. The draw is a function of (seed, step, place of the image, place
    of the pixel in it) alone, so it does not depend on how many workers share the batch.

    All pixels of a segment have the same class, image and region, hence the same masks in every relation. So
    a relation's sum over them is estimated without bias by a sum over the drawn ones, each of which counts
    for (pixels of the segment ÷ drawn ones): stratified sampling with the segments as strata.

    Returns min(n, segments · most) pixels. Where segments have fewer than `most`, these are more than are
    drawn, and the others stand for none: the host need not wait for a device to say how many are drawn.
    """
    segment, n = pixels.segment, len(pixels.segment)
    numbers, image = torch.arange(n, device=segment.device), pixels.image.contiguous()
    inside = numbers - torch.searchsorted(image, image)  # pixels are sorted by image
    draw = uniform(seed, step, position[pixels.image], inside)
    # By segment and, within one, by draw: a stable sort of what is sorted by draw already.
    order = draw.argsort()
    order = order[segment[order].argsort(stable=True)]
    by_segment = segment[order]
    first = torch.searchsorted(by_segment, by_segment)
    size = torch.searchsorted(by_segment, by_segment, right=True) - first
    rank = numbers - first
    stands_for = torch.where(rank < most, size / size.clamp(max=most), 0)
    drawn_first = rank.argsort(stable=True)[: segments * most]
    kept, back = order[drawn_first].sort()
    few = take(replace(pixels, stands_for=None), kept)
    return replace(few, stands_for=stands_for[drawn_first][back])
