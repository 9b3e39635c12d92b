"""Packs of a few images, as the tests of inference make them."""

from __future__ import annotations

from tests.inference.conftest import packed

__all__ = ["packed"]
