"""Low-level image similarity (SPML, section 3.1): within an image, contour regions attract and repel."""

from __future__ import annotations

import torch
from torch import Tensor

from spml_dist.records import Block, Pixels, Relation, Segments


def blocks(pixels: Pixels, segments: Segments, concentration: float, images: Tensor | float) -> list[Block]:
    """One block for each image with a valid pixel: V⁺ = other segments of the pixel's contour region,
    V⁻ = segments of the image's other regions.

    images: how many images the mean of per-image means is taken over.
    """
    result = []
    rows = pixels.image.unique_consecutive(return_counts=True)
    columns = segments.image.unique_consecutive(return_counts=True)[1].tolist()
    row = column = 0
    for n, p in zip(rows[1].tolist(), columns, strict=True):
        regions, group = torch.unique(segments.region[column : column + p], return_inverse=True)
        attract = torch.arange(len(regions), device=group.device)[:, None] == group[None, :]
        of_pixels = group[pixels.segment[row : row + n] - column]
        size = n if pixels.stands_for is None else pixels.stands_for[row : row + n].sum()
        result.append(
            Block(
                rows=slice(row, row + n),
                columns=slice(column, column + p),
                relations=(Relation(of_pixels, attract, ~attract, concentration),),
                scale=(1 / (size * images),),
            )
        )
        row, column = row + n, column + p
    return result
