"""Functions that answer behind a Ray cluster, by Ray Serve. It is handed functions and knows none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from spml_dist.cluster.local_processes import ONE_THREAD
from spml_dist.cluster.ray_cluster import connected
from spml_dist.errors import RunError

Answering = Callable[[Any], Any]
"""question → answer; both pickle"""


@contextmanager
def deployed(openers: Sequence[Callable[[], Answering]], replicas: int = 1) -> Iterator[list[Answering]]:
    """While the block runs every opener's function answers on a Ray cluster, by so many replicas each.

    openers: called once in each replica for what it answers by; they travel there, so they pickle. On the
    cluster that RAY_ADDRESS names, else on one of this machine's own. Yields a function for each opener;
    many threads may call it. What an answer raises is raised here. RunError: Ray Serve is not installed.
    """
    with connected(max(2, len(openers) * replicas), ONE_THREAD):
        try:
            from ray import serve
        except ImportError as problem:
            raise RunError(
                "Ray Serve is not installed", problem, "pip install 'spml-dist[serve]'"
            ) from problem

        serve.start(http_options={"location": "NoServer"})
        try:
            yield [_deploy(serve, number, opener, replicas) for number, opener in enumerate(openers)]
        finally:
            serve.shutdown()


def _deploy(serve: Any, number: int, opener: Callable[[], Answering], replicas: int) -> Answering:
    name = f"answering-{number}"

    @serve.deployment(name=name, num_replicas=replicas)
    class Replica:
        def __init__(self, opener: Callable[[], Answering]):
            self._answer = opener()

        def __call__(self, question: Any) -> Any:
            return self._answer(question)

    handle = serve.run(Replica.bind(opener), name=name, route_prefix=None)
    return lambda question: _answer(handle, question)


def _answer(handle: Any, question: Any) -> Any:
    from ray.exceptions import RayTaskError

    try:
        return handle.remote(question).result()
    except RayTaskError as error:
        raise error.cause from None
