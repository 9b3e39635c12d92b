"""Marks beyond the image that they are said of."""

from __future__ import annotations

from spml_dist.errors import DataError


class Outside(DataError):
    """A point or box that does not lie within its image, whose size the remedy says."""
