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


def whole(
    pixels: Pixels, segments: Segments, concentration: float, images: Tensor | float, batch: int
) -> list[Block]:
    """The same as one block over all of the rank's images, for which the host needs no number of the
    device's: a group of pixels for each segment, and ranges that keep every image to its own segments.

    batch: images of this rank, those without a valid pixel too.
    """
    numbers = torch.arange(batch + 1, device=segments.image.device)
    columns, rows = (
        torch.searchsorted(image, numbers).int() for image in (segments.image, pixels.image.contiguous())
    )
    together = segments.image[:, None] == segments.image[None, :]
    attract = together & (segments.region[:, None] == segments.region[None, :])
    size: Tensor = rows.diff().double()
    if pixels.stands_for is not None:
        # By a product and not by index_add, whose sums on a GPU have another order each time.
        of_image = (pixels.image[None, :] == numbers[:-1, None]).double()
        size = of_image @ pixels.stands_for.double()
    scale = (1 / (size * images))[pixels.image].to(pixels.embedding.dtype)
    return [
        Block(
            rows=slice(0, len(pixels.segment)),
            columns=slice(0, len(segments)),
            relations=(Relation(pixels.segment, attract, together & ~attract, concentration),),
            scale=(scale,),
            ranges=(
                torch.stack([columns[pixels.image], columns[pixels.image + 1]], dim=1),
                torch.stack([rows[segments.image], rows[segments.image + 1]], dim=1),
            ),
        )
    ]
