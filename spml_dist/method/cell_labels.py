"""The class of a cell of the embedding's grid by all of its pixels, where the released method reads one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from spml_dist.method.segments import resize_labels
from spml_dist.records import IGNORED, UNLABELLED


def majority_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Label maps [B, H, W] on a grid [B, *size] int64: the class of most labelled pixels of each cell.

    labels: integers, 0..253 a class, 254 unlabelled, 255 ignored. Cells have ⌈H/h⌉×⌈W/w⌉ pixels, from the
    top left one on, where the nearest neighbour is. Of classes with as many pixels the lowest wins; a cell
    without a labelled pixel is unlabelled. Ignored cells are those of the nearest neighbour, whatever else
    they hold: which pixels take part does not depend on how they are labelled.
    """
    nearest = resize_labels(labels, size)
    (height, width), (rows, columns) = labels.shape[1:], size
    high, wide = -(-height // rows), -(-width // columns)
    margin = (0, wide * columns - width, 0, high * rows - height)
    cells = pad(labels.long(), margin, value=IGNORED).unfold(1, high, high).unfold(2, wide, wide).flatten(3)
    # Sorted, the pixels of a class are a run, which began where the class was last another one.
    cells = cells.sort(dim=-1).values
    place = torch.arange(cells.shape[-1], device=cells.device).expand_as(cells)
    begins = torch.ones_like(cells, dtype=torch.bool)
    begins[..., 1:] = cells[..., 1:] != cells[..., :-1]
    run = place - torch.where(begins, place, 0).cummax(dim=-1).values
    run = torch.where(cells < UNLABELLED, run, -1)
    # The first of the longest runs to end is that of the lowest class.
    longest = run == run.max(dim=-1, keepdim=True).values
    winner = longest.int().argmax(dim=-1, keepdim=True)
    classes = torch.where(run.amax(dim=-1) >= 0, cells.gather(-1, winner)[..., 0], UNLABELLED)
    return torch.where(nearest == IGNORED, IGNORED, classes)
