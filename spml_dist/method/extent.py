"""Where a segment lies: its box and its area, in its crop and in its image."""

from __future__ import annotations

import torch
from torch import Tensor


def extent(valid: Tensor, segment: Tensor, count: int, place: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Box and area of each segment in shares of its crop: pixel (y, x) covers y/h..(y+1)/h and x/w..(x+1)/w.

    valid: [B, h, w] bool; segment: [n] int64 in 0..count-1, of the valid pixels in image-major, then
    row-major order; place: [n] int64, where these are in `valid` flattened, if that is known. Returns
    [count, 4] float32 (top, left, bottom, right) and [count] float32, without gradient; a segment without
    pixels gives zeros.
    """
    h, w = valid.shape[1:]
    place = valid.flatten().nonzero()[:, 0] if place is None else place
    place = torch.stack([place // w % h, place % w], dim=1).float()  # (y, x)
    of = segment[:, None].expand(-1, 2)
    nowhere = place.new_zeros(count, 2)
    first = nowhere.scatter_reduce(0, of, place, "amin", include_self=False)
    last = nowhere.scatter_reduce(0, of, place + 1, "amax")
    box = torch.cat([first, last], dim=1) / place.new_tensor([h, w, h, w])
    pixels = place.new_zeros(count).index_add(0, segment, torch.ones_like(place[:, 0]))
    return box, pixels / (h * w)


def in_image(box: Tensor, area: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes and areas of segments, from shares of their crops to shares of their images.

    box: [P, 4] (top, left, bottom, right); area: [P]; window: [P, 4] of each one's crop, as `Batch.window`
    has it: mirrored where left > right, outside 0..1 where padded. Returns [P, 4], with top ≤ bottom and
    left ≤ right, clipped to 0..1, and [P], not clipped: pixels of the embedding's grid that reach over the
    image's border count as a whole.
    """
    start = window[:, None, :2]
    size = window[:, None, 2:] - start  # negative where mirrored
    corners = (start + box.reshape(-1, 2, 2) * size).clamp(0, 1)
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1), area * size.prod(dim=2)[:, 0].abs()
