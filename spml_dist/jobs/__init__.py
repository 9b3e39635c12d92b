"""Spreading a function over processes or a Ray cluster, and launching trainings. It knows no function."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from spml_dist.jobs import cluster, processes
from spml_dist.jobs.cluster import WORKER_ENVIRONMENT, train
from spml_dist.jobs.logs import following

__all__ = ["WORKER_ENVIRONMENT", "following", "spread", "train"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """function(item) for every item, as they finish; items are taken as workers become free.

    One worker is this process. More are Ray tasks where RAY_ADDRESS names a cluster, else processes of this
    machine, of one thread each; the function, the items and the results have to pickle, and the function
    travels once to each. The workers end with the iterator: close it if it is not used up.
    What the function raises is raised here and ends it; RunError if a worker dies.
    """
    if workers == 1:
        yield from map(function, items)
    elif os.environ.get("RAY_ADDRESS"):
        yield from cluster.spread(function, items, workers)
    else:
        yield from processes.spread(function, items, workers)
