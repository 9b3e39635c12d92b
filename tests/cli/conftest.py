"""The small folder of images and annotations that the tests of data use, for the verbs too."""

from __future__ import annotations

from tests.data.conftest import root

__all__ = ["root"]
