"""Labels that spread over an image along its embedding (SPML, appendix A.4; Ahn & Kwak, 2018).

The walk runs on a coarse grid of h×w cells, p = h·w; the release takes ⌊H/8⌋×⌊W/8⌋. An image is seen in V
views, such as plain and mirrored; maps of mirrored views come mirrored back.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize, threshold

STEPS = 64
"""Where the paper writes 6 iterations the release squares the transition 6 times"""


def affinity(embedding: Tensor, grid: tuple[int, int], concentration: float = 5.0) -> Tensor:
    """How alike any two cells are: [p, p] in (0, 1], symmetric, 1 on the diagonal.

    embedding: [V, C, H, W], vectors of any length. The mean over the views of exp(γ(cosine - 1)).
    """
    return _alike(_unit(resize(embedding, grid)), slice(None), concentration)


def transition(alike: Tensor, sharpness: float = 20.0) -> Tensor:
    """Share T[i, j] of cell i in what cell j takes over in one step: [p, p], columns sum to 1.

    alike: [p, p] affinities; each is raised to the power β, then divided by the sum of its column. (The
    paper normalises rows before the power; this is what the release computes.)
    """
    weights = alike**sharpness
    shares = weights / weights.sum(dim=0, keepdim=True)
    # exp(γβ(cosine - 1)) falls below the normal numbers of float32 where the cosine is near 0, and processors
    # multiply such numbers many times more slowly.
    return threshold(shares, torch.finfo(shares.dtype).tiny, 0.0)


def walk(seeds: Tensor, step: Tensor, steps: int = STEPS) -> Tensor:
    """Seeds M [K, h, w] after some steps of a transition T [p, p]: M·T^steps, [K, h, w].

    One product with the seeds a step: K·p² multiplications instead of the p³ of squaring T, and no second
    matrix. A map never leaves the range of its seeds; what sums to 1 over the classes goes on doing so.
    """
    spread = seeds.flatten(1)
    for _ in range(steps):
        spread = spread @ step
    return spread.view_as(seeds)


def walk_in_blocks(
    seeds: Tensor,
    embedding: Tensor,
    memory: int,
    steps: int = STEPS,
    concentration: float = 5.0,
    sharpness: float = 20.0,
) -> Tensor:
    """`walk` along the transition of an embedding on the seeds' grid, in bounded memory: [K, h, w].

    seeds: [K, h, w]; embedding: [V, C, h, w]; memory: bytes. Columns of the transition need one another
    neither to be made nor to be multiplied with: the whole matrix is kept where it takes no more than half of
    the memory, else its blocks are made anew at every step.
    """
    unit = _unit(embedding)
    cells, numbers = unit.shape[2], memory // (2 * unit.element_size())
    # What is made of a block's columns on the way takes about four times as much as they do.
    width = max(1, numbers // (4 * cells))
    blocks = [slice(start, min(start + width, cells)) for start in range(0, cells, width)]

    def columns(block: slice) -> Tensor:
        return transition(_alike(unit, block, concentration), sharpness)

    kept = [columns(block) for block in blocks] if cells**2 <= numbers and steps > 1 else None
    spread = seeds.flatten(1)
    for _ in range(steps):
        spread = torch.cat([spread @ step for step in kept or map(columns, blocks)], dim=1)
    return spread.view_as(seeds)


def mean_softmax(logits: Tensor, grid: tuple[int, int]) -> Tensor:
    """Class probabilities on the grid, averaged over the views: [V, K, H, W] scores -> [K, h, w]."""
    return resize(logits, grid).softmax(dim=1).mean(dim=0)


def softmax_seeds(probability: Tensor, present: Tensor) -> Tensor:
    """Seeds from a classifier: each class map over its own maximum, absent classes 0.

    probability: [K, h, w]; present: [K] bool, the classes of the image's weak labels.
    """
    highest = probability.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(probability.dtype).tiny)
    return torch.where(present[:, None, None], probability / highest, 0)


def cam_seeds(cams: Tensor, classes: Tensor, num_classes: int, exponent: float = 6) -> Tensor:
    """Seeds from class activation maps: [K, H, W]; classes without a map are 0.

    cams: [m, H, W] in [0, 1]; classes: [m] int64, the class of each, never 0: that is the background, whose
    seeds are (1 - the largest map)^exponent.
    """
    seeds = cams.new_zeros(num_classes, *cams.shape[1:])
    seeds[classes] = cams
    seeds[0] = (1 - seeds.amax(dim=0)) ** exponent
    return seeds


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [..., H, W] bilinearly to another grid, down to the walk's or up to the image's."""
    resized = interpolate(maps.flatten(0, -3)[None], size=size, mode="bilinear", align_corners=False)
    return resized.view(*maps.shape[:-2], *size)


def _unit(embedding: Tensor) -> Tensor:
    """[V, C, h, w] of any length -> [V, C, p] unit vectors."""
    return normalize(embedding.flatten(2), dim=1, eps=1e-12)


def _alike(unit: Tensor, columns: slice, concentration: float) -> Tensor:
    """Affinities of all cells to some: [p, columns]. unit: [V, C, p]."""
    alike = unit.new_zeros(unit.shape[2], unit[0, 0, columns].shape[0])
    # View by view into one sum: V matrices of p² at once would be the largest tensors here.
    for view in unit:
        alike += torch.exp(concentration * (view.T @ view[:, columns] - 1))
    return alike / len(unit)
