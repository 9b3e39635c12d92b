"""Annotations that do not fit their image."""

from __future__ import annotations

from spml_dist.errors import DataError


class OutsideImageError(DataError):
    """Marks beyond their image, or drawn on one of another size; the message has the image's size."""


def require_stated_size(stated: tuple[float, float] | None, shape: tuple[int, int], source: str) -> None:
    """Raise OutsideImageError if annotations say that they were drawn on an image of another size.

    stated: (H, W) as the annotations say, None = they do not. shape: (H, W) of the image. source: names the
    file and image in errors.
    """
    if stated is None or tuple(stated) == tuple(shape):
        return
    sizes = f"{stated[1]:.0f}×{stated[0]:.0f}, the image is {shape[1]}×{shape[0]}"
    remedy = "take image and annotations from the same release of the data set"
    raise OutsideImageError(f"{source}: drawn on an image of another size", sizes, remedy)
