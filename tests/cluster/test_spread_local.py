"""Spreading a function: every item once, by whoever is free, and one clear error for what goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from spml_dist import cluster
from spml_dist.cluster import ray_cluster
from spml_dist.errors import DataError, RunError


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def squared(number: int) -> int:
    return number * number


def surroundings(number: int) -> tuple[int, str, int]:
    import cv2

    return os.getpid(), os.environ["OMP_NUM_THREADS"], cv2.getNumThreads()


def refusing(number: int) -> int:
    if number == 2:
        raise DataError("image 2: cannot be decoded", "zero bytes", "replace it")
    return number


def dying(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


class Particular(Exception):
    """Unlike what it is pickled as: it is made from two values."""

    def __init__(self, image: str, reason: str):
        super().__init__(f"{image}: {reason}")


def failing(how: str) -> None:
    if how == "of two values":
        raise Particular("image 2", "torn")
    error = ValueError("image 2: torn")
    error.lock = threading.Lock()
    raise error


def answering_and_dying(item: int) -> int:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return item


def sleeping(file: Path) -> None:
    file.write_text(str(os.getpid()))
    time.sleep(200)


class TestProcesses:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_every_item_is_answered_once(self, workers):
        assert sorted(cluster.spread(squared, range(7), workers)) == [0, 1, 4, 9, 16, 25, 36]

    def test_there_are_no_more_workers_than_items_and_none_for_no_item(self):
        assert list(cluster.spread(squared, [3], 500)) == [9]
        assert list(cluster.spread(squared, [], 2)) == []

    def test_one_worker_is_this_process_and_more_are_others_of_one_thread_each(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        assert [found[:2] for found in cluster.spread(surroundings, [0], 1)] == [(os.getpid(), "7")]
        for process, threads, of_images in cluster.spread(surroundings, range(4), 2):
            assert process != os.getpid() and (threads, of_images) == ("1", 1)
        assert os.environ["OMP_NUM_THREADS"] == "7"

    @pytest.mark.parametrize("workers", [1, 2])
    def test_what_the_function_raises_is_raised_as_it_was(self, workers):
        with pytest.raises(DataError) as raised:
            list(cluster.spread(refusing, range(6), workers))
        assert str(raised.value) == "image 2: cannot be decoded (got zero bytes); replace it"

    @pytest.mark.parametrize(
        ("how", "name"), [("of two values", "Particular"), ("with a lock", "ValueError")]
    )
    def test_an_error_that_cannot_travel_is_told(self, how, name):
        with pytest.raises(RunError) as raised:
            list(cluster.spread(failing, [how], 2))
        message = str(raised.value)
        assert f"(got {name}: image 2: torn, at " in message and "test_spread_local.py:" in message
        assert "Traceback" in raised.value.__notes__[0]

    def test_a_worker_that_is_killed_is_one_error(self):
        with pytest.raises(RunError, match=r"worker process \d+: died \(got signal 9\)"):
            list(cluster.spread(dying, range(6), 2))

    def test_so_is_one_that_is_killed_before_it_is_asked_again(self):
        results = cluster.spread(answering_and_dying, range(6), 2)
        assert next(results) in range(6)
        time.sleep(2)
        with pytest.raises(RunError, match=r"worker process \d+: died \(got signal 9\)"):
            list(results)

    def test_the_workers_end_with_the_iterator(self, tmp_path):
        files = [tmp_path / "0", tmp_path / "1"]

        def interrupt() -> None:
            while not all(file.is_file() and file.read_text() for file in files):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        # A shell's background jobs are started with SIGINT ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt), closing(cluster.spread(sleeping, files, 2)) as results:
            list(results)
        signal.signal(signal.SIGINT, before)
        assert not any(psutil.pid_exists(int(file.read_text())) for file in files)


@pytest.mark.timeout(600)
def test_a_cluster_of_ray_answers_as_processes_do(monkeypatch):
    """Slow: Ray itself, started for this test."""
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert sorted(cluster.spread(squared, range(7), 2)) == [0, 1, 4, 9, 16, 25, 36]


class Ray:
    """Answers like Ray, at once and in this process; tasks are taken from the end."""

    def __init__(self):
        self.largest = self.puts = 0

    def put(self, value: object) -> list[object]:
        self.puts += 1
        return Reference(value)

    def get(self, reference: Reference) -> object:
        if isinstance(reference.value, Exception):
            raise reference.value
        return reference.value

    def remote(self, **options):
        assert options == {"num_cpus": 1}
        return lambda function: SimpleNamespace(remote=lambda *given: Reference((function, given)))

    def wait(self, running: list[Reference], num_returns: int):
        self.largest = max(self.largest, len(running))
        *rest, last = running
        function, given = last.value
        try:
            last.value = function(*given)
        except Exception as error:
            last.value = Failed(error)
        return [last], rest


class Reference:
    def __init__(self, value: object):
        self.value = value


class Failed(Exception):
    @property
    def cause(self) -> Exception:
        return self.args[0]


class Lost(Exception):
    """What Ray raises for a worker that is gone."""


class TestRay:
    @pytest.fixture
    def ray(self, monkeypatch) -> Iterator[Ray]:
        ray = Ray()
        monkeypatch.setitem(sys.modules, "ray", ray)
        errors = SimpleNamespace(RayTaskError=Failed, RayError=Lost)
        monkeypatch.setitem(sys.modules, "ray.exceptions", errors)
        monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
        monkeypatch.setattr(
            ray_cluster, "connected", lambda workers, environment: closing(SimpleNamespace(close=int))
        )
        ray_cluster._unpacked.cache_clear()
        yield ray
        ray_cluster._unpacked.cache_clear()

    def test_every_item_is_answered_once_by_so_many_tasks_at_a_time(self, ray):
        assert sorted(cluster.spread(squared, range(7), 3)) == [0, 1, 4, 9, 16, 25, 36]
        assert (ray.largest, ray.puts) == (3, 1)

    def test_what_the_function_raises_is_raised_as_it_was(self, ray):
        with pytest.raises(DataError, match="image 2"):
            list(cluster.spread(refusing, range(6), 2))

    def test_a_worker_that_is_lost_is_one_error(self, ray, monkeypatch):
        def gone(reference: Reference) -> object:
            raise Lost("the node died")

        monkeypatch.setattr(ray, "get", gone)
        with pytest.raises(RunError, match=r"a Ray worker failed \(got the node died\); the same command"):
            list(cluster.spread(squared, range(6), 2))
