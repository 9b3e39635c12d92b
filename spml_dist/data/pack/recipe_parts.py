"""Recipes read in parts: what `pack_parts` takes, with broken images kept apart from a failing machine."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from spml_dist.data.pack.parts import Rejection
from spml_dist.data.recipes.recipe import Recipe
from spml_dist.errors import DataError, RunError
from spml_dist.records import Sample

_OF_THE_MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
"""errors that any image would meet at that moment"""


@dataclass(frozen=True)
class RecipeParts:
    """Part number n of a recipe: its images from n·size on."""

    recipe: Recipe
    size: int
    """images of a part"""

    def __call__(self, number: int) -> Iterator[tuple[Sample, bytes] | Rejection]:
        """Samples and their JPEGs, one at a time. Raises RunError where the machine fails, not an image."""
        return map(self._read, self.recipe.ids[number * self.size : (number + 1) * self.size])

    def _read(self, image_id: str) -> tuple[Sample, bytes] | Rejection:
        try:
            sample = self.recipe.sample(image_id)
            return sample, self.recipe.jpeg(sample)
        except DataError as error:
            return _rejected(image_id, error, error.__cause__)
        except OSError as error:  # a name that no file system takes is met before anything is opened
            name, remedy = error.filename or image_id, "rename it or take its id out of the split"
            problem = DataError(f"{name}: cannot be read", error.strerror or error, remedy)
            return _rejected(image_id, problem, error)


def _rejected(image_id: str, error: DataError, cause: BaseException | None) -> Rejection:
    if isinstance(cause, OSError) and cause.errno in _OF_THE_MACHINE:
        raise RunError(error.what, error.value, "mend that; the same command goes on") from cause
    return Rejection(image_id, str(error))
