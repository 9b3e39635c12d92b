"""Spreading a function over processes or a Ray cluster, and launching trainings. It knows no function."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from spml_dist.cluster import local_processes, ray_cluster
from spml_dist.cluster.follow_log import following
from spml_dist.cluster.ray_cluster import WORKER_ENVIRONMENT, Nodes, nodes, train

__all__ = ["WORKER_ENVIRONMENT", "Nodes", "following", "nodes", "spread", "train"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """function(item) for every item, as they finish; items are taken as workers become free.

    One worker is this process. More are Ray tasks where RAY_ADDRESS names a cluster, else processes of this
    machine, of one thread each; the function, the items and the results have to pickle, and the function
    travels once to each. The workers end with the iterator: close it if it is not used up.
    What the function raises is raised here and ends it; RunError if a worker dies.
    """
    if workers == 1:
        yield from map(function, items)
    elif os.environ.get("RAY_ADDRESS"):
        yield from ray_cluster.spread(function, items, workers)
    else:
        yield from local_processes.spread(function, items, workers)
