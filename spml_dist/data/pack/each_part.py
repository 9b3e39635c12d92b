"""Something made of every part of a pack, over workers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar

from spml_dist import cluster
from spml_dist.progress import progress_bar

Result = TypeVar("Result")


def each_part(function: Callable[[int], Result], parts: int, name: str, workers: int) -> list[Result]:
    """function(number) for every part, in their order, by so many processes side by side.

    name: of the bar. The function and what it returns have to pickle. Raises what it raises, and RunError if
    a worker dies.
    """
    with closing(cluster.spread(_Numbered(function), range(parts), workers)) as spread:
        found = dict(progress_bar(spread, name, parts, unit="tars"))
    return [found[number] for number in range(parts)]


@dataclass(frozen=True)
class _Numbered(Generic[Result]):
    """Results come as workers finish: each says which part it is of."""

    function: Callable[[int], Result]

    def __call__(self, number: int) -> tuple[int, Result]:
        return number, self.function(number)
