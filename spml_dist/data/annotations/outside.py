"""Marks and maps that do not fit the image that they are said of."""

from __future__ import annotations

from spml_dist.errors import DataError


class Outside(DataError):
    """Marks beyond their image, or drawn on one of another size; both sizes are said."""


def require_drawn_on(stated: tuple[int, int] | None, shape: tuple[int, int], source: str) -> None:
    """Raise Outside if annotations say that they were drawn on an image of another size.

    stated: (H, W) as the annotations say, None = they do not. shape: (H, W) of the image. source: names the
    file and image in errors.
    """
    if stated is None or tuple(stated) == tuple(shape):
        return
    seen = f"{stated[1]:.0f}×{stated[0]:.0f}, the image is {shape[1]}×{shape[0]}"
    remedy = "take image and annotations from the same release of the data set"
    raise Outside(f"{source}: drawn on an image of another size", seen, remedy)
