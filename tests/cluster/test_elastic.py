"""How many workers start, and when more are to: without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from spml_dist.cluster import elastic, ray_cluster
from spml_dist.cluster.elastic import Growth, settled
from spml_dist.errors import RunError, Stopped


class TestSettled:
    def test_room_for_all_is_taken_at_once(self):
        assert settled(lambda: 4, 4, stopped=lambda: False) == 4

    def test_nodes_that_come_back_are_waited_for(self):
        growing = iter([1, 1, 2, 4])
        assert settled(lambda: next(growing), 4, stopped=lambda: False, pause=0) == 4

    def test_but_not_for_ever(self, monkeypatch):
        monkeypatch.setattr(elastic, "SETTLE_SECONDS", 0.05)
        assert settled(lambda: 3, 4, stopped=lambda: False, pause=0.01) == 3

    def test_nor_when_somebody_asks_to_stop(self):
        assert settled(lambda: 3, 4, stopped=lambda: True) == 3


class Cluster:
    """Workers that make a step between two looks, and a cluster with so much room left."""

    def __init__(self, room: int = 0):
        self.room, self.step, self.requests, self.asked = room, 5, [], 0

    @contextmanager
    def wanted(self) -> Iterator[elastic.Room]:
        self.requests.append("opened")
        yield lambda: self.room
        self.requests.append("closed")

    def ask(self) -> None:
        self.asked += 1

    def growth(self) -> Growth:
        return Growth(self.wanted, lambda: self.step, self.ask)


class TestGrowth:
    def test_nothing_is_requested_before_the_workers_have_made_a_step(self):
        cluster = Cluster(room=1)
        with cluster.growth() as growth:
            growth.look()
            assert (cluster.requests, cluster.asked) == ([], 0)
            cluster.step += 1
            growth.look()
            growth.look()
        assert cluster.requests == ["opened", "closed"] and cluster.asked == 1 and growth.asked

    def test_it_is_asked_once_and_only_when_there_is_room(self):
        cluster = Cluster()
        with cluster.growth() as growth:
            cluster.step += 1
            for _ in range(3):
                growth.look()
            assert not growth.asked
            cluster.room = 2
            for _ in range(3):
                growth.look()
        assert cluster.asked == 1


class TestTraining:
    """`ray_cluster._grown` with a stand-in for Ray: workers that save and end when they are asked to."""

    @pytest.fixture
    def run(self, monkeypatch) -> Callable[..., tuple[bool, list]]:
        def run(counts: list[int], room: int, stopped: bool = False, error: Exception | None = None):
            events: list = []
            cluster, request = Cluster(room), {"grow": False}

            def grow(asked: bool) -> None:
                request["grow"] = asked
                events.append("asked" if asked else "withdrawn")

            def fit(count: int, device: str) -> None:
                events.append(count)
                for _ in range(200):
                    cluster.step += 1
                    if request["grow"]:
                        raise error or Stopped("saved")
                    ray_cluster.threading.Event().wait(0.005)

            monkeypatch.setattr(elastic, "LOOK_SECONDS", 0.01)
            monkeypatch.setattr(ray_cluster, "_placed", lambda *_: (counts.pop(0), "cpu"))
            monkeypatch.setattr(ray_cluster, "_requested", lambda *_: cluster.wanted())
            more = ray_cluster._grown(
                fit, (1, 2), "cpu", events.append, lambda: stopped, lambda: cluster.step, grow
            )
            return more, events

        return run

    def test_it_starts_again_when_there_is_room(self, run):
        more, events = run([1], room=1)
        assert more and events == ["withdrawn", 1, "asked", "saved; there is room for more workers"]

    def test_all_workers_there_may_be_are_left_alone(self, run):
        assert run([2], room=1) == (False, ["withdrawn", 2])

    def test_who_asked_to_stop_is_obeyed(self, run):
        with pytest.raises(Stopped):
            run([1], room=1, stopped=True)

    def test_a_failure_stays_one(self, run):
        with pytest.raises(RunError, match="lost"):
            run([1], room=1, error=RunError("lost"))
