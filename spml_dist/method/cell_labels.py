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
    labelled = cells < UNLABELLED
    # How many pixels of the cell have each pixel's class: 256 pairs of a cell of 4×4, no table of classes.
    votes = (cells[..., :, None] == cells[..., None, :]).sum(dim=-1)
    rank = torch.where(labelled, votes * (UNLABELLED + 1) - cells, -UNLABELLED - 1)
    winner = rank.argmax(dim=-1, keepdim=True)
    classes = torch.where(labelled.any(dim=-1), cells.gather(-1, winner)[..., 0], UNLABELLED)
    return torch.where(nearest == IGNORED, IGNORED, classes)
