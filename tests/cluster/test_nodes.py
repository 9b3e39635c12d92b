"""A function on every node of a cluster, without a cluster: what Ray is handed. test_two_nodes.py has one."""

from __future__ import annotations

from functools import partial

import pytest
import ray
from ray.remote_function import RemoteFunction

from spml_dist.cluster import ray_cluster
from spml_dist.cluster.ray_cluster import Nodes
from spml_dist.errors import RunError

NODES = Nodes(["a", "b"], ["10.0.0.1", "10.0.0.2"], ["0" * 56, "1" * 56])


@pytest.fixture(autouse=True)
def here(monkeypatch) -> None:
    """Tasks run at once, in this process."""
    monkeypatch.setattr(
        RemoteFunction, "_remote", lambda self, args, kwargs, **options: partial(self._function, *args)
    )
    monkeypatch.setattr(ray, "get", lambda task: task())


def numbered(word: str, number: int, count: int) -> str:
    return f"{word} {number} of {count}"


def test_a_function_with_arguments_of_its_own_runs_on_each():
    assert NODES.each(partial(numbered, "node")) == ["node 0 of 2", "node 1 of 2"]


def test_a_node_that_fails_is_named():
    with pytest.raises(RunError, match="node b: ZeroDivisionError"):
        NODES.each(lambda number, count: 1 / (1 - number))


def test_a_head_that_is_gone_is_told_of_and_not_asked(monkeypatch):
    monkeypatch.setattr(ray_cluster, "ANSWER_SECONDS", 0)
    monkeypatch.setattr(ray, "cluster_resources", lambda: pytest.fail("Ray was asked"))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(RunError, match="nobody answers there"):
        ray_cluster._placed((1, 1), "auto", print, lambda: False)
