"""Spherical k-means over all images of a batch at once, off the autograd tape."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def initial_grid(grid: tuple[int, int], height: int, width: int, device=None) -> Tensor:
    """First cluster of each pixel: a grid of about gy × gx cells, [height, width] int64.

    Cell (y, x) has the number round(y') + gy·round(x'), y' and x' being evenly spaced over the grid
    (halves round to even, so the cells at the border are half as large).
    """
    gy, gx = grid
    y = torch.linspace(0, gy - 1, height, device=device).round().long()
    x = torch.linspace(0, gx - 1, width, device=device).round().long()
    return y[:, None] + gy * x[None, :]


def unit(vectors: Tensor, dim: int = -1) -> Tensor:
    """Vectors divided by their L2 norm, which is floored at 1e-12 (zeros stay zeros)."""
    return normalize(vectors, dim=dim, eps=1e-12)


@torch.no_grad()
def cluster(features: Tensor, grid: tuple[int, int], iterations: int, valid: Tensor | None = None) -> Tensor:
    """Cluster number of each pixel within its image: [B, h, w] int64 in 0..k-1.

    features: [B, h, w, D] unit vectors; valid: [B, h, w] bool, False for pixels that take no part
    (they get a number too, and move no centre). A cluster that loses all its pixels has a zero centre
    and stays available: it wins pixels whose best cosine is negative. Ties go to the smaller number.
    """
    b, h, w, d = features.shape
    # On the host, which would have to wait for the device to know k.
    start = torch.unique(initial_grid(grid, h, w), return_inverse=True)[1]
    k = int(start.max()) + 1 if start.numel() else 0
    start = start.to(features.device)
    points = features.reshape(b, h * w, d)
    labels = start.reshape(1, -1).expand(b, -1)
    first = k * torch.arange(b, device=features.device)[:, None]
    takes_part = None if valid is None else valid.reshape(b, h * w)
    for _ in range(iterations):
        if points.is_cuda:
            labels = _nearest(points, unit(sums_of(points, labels, k, takes_part)))
            continue
        rows = first + labels
        if takes_part is not None:
            rows = torch.where(takes_part, rows, b * k)  # a row of its own, which is dropped
        # One scatter for all images: cluster j of image i is row i·k + j.
        sums = points.new_zeros(b * k + 1, d).index_add_(0, rows.flatten(), points.flatten(0, 1))
        centres = unit(sums[:-1].view(b, k, d))
        labels = _nearest(points, centres)
    return labels.reshape(b, h, w)


def sums_of(points: Tensor, labels: Tensor, k: int, takes_part: Tensor | None) -> Tensor:
    """[B, k, D] sums of each cluster's points by a product, whose order does not change as that of a GPU's
    index_add does."""
    member = labels[:, None, :] == torch.arange(k, device=labels.device)[:, None]
    if takes_part is not None:
        member &= takes_part[:, None, :]
    return member.to(points.dtype) @ points


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    return (points @ centres.mT).max(dim=-1).indices  # the first of equals
