"""A cluster is reported to have too few GPUs or cores; one that may still grow is given time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import pytest

from spml_dist.cluster import capacity
from spml_dist.errors import RunError, Stopped


class TestDevice:
    @pytest.mark.parametrize(
        ("gpus", "device"),
        [({}, "cpu"), ({"GPU": 1.0}, "cpu"), ({"GPU": 2.0}, "cuda"), ({"GPU": 8.0}, "cuda")],
    )
    def test_auto_takes_gpus_if_there_is_one_for_every_worker(self, gpus: Mapping[str, float], device: str):
        assert capacity.device_for("auto", 2, lambda: gpus | {"CPU": 64.0}) == device

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    @pytest.mark.parametrize("gpus", [0.0, 8.0])
    def test_what_is_asked_for_by_name_is_taken(self, device: str, gpus: float):
        assert capacity.device_for(device, 2, lambda: {"GPU": gpus}) == device


@pytest.mark.parametrize(("device", "missing"), [("cuda", 4), ("cpu", 0)])
def test_a_worker_wants_a_gpu_or_else_a_core(device: str, missing: int):
    assert capacity.lacking(5, device, lambda: {"GPU": 1.0, "CPU": 5.0, "memory": 1e9}) == missing


class TestWait:
    @pytest.fixture
    def message(self) -> list[str]:
        return []

    @pytest.fixture
    def wait(self, message: list[str]) -> Callable[..., None]:
        """capacity.wait, for a cluster that may grow where nothing else is given."""
        cluster = {"where": "the cluster at head:6379", "patience": 600, "pause": 0}
        return partial(capacity.wait, **cluster, say=message.append, stopped=lambda: False)

    def test_with_room_for_all_nothing_is_said(self, wait, message):
        wait(2, "cuda", lambda: {"GPU": 2.0}, patience=0)
        assert message == []

    def test_what_cannot_grow_is_refused_at_once(self, wait, message):
        with pytest.raises(RunError) as error:
            wait(2, "cuda", lambda: {"GPU": 1.0, "CPU": 16.0}, where="this machine", patience=0)
        assert str(error.value) == (
            "engine.workers: engine.device gives each a GPU, and this machine has too few "
            "(got 2 workers, 1 GPU); lower engine.workers or set engine.device=cpu"
        )
        assert message == []

    def test_nodes_that_join_are_waited_for_and_heard_of(self, wait, message):
        growing = iter([{"CPU": 4.0}, {"GPU": 1.0}, {"GPU": 1.0}, {"GPU": 2.0}, {"GPU": 4.0}])
        wait(3, "cuda", lambda: next(growing))
        assert message[0].startswith("waiting up to 600 s for the cluster at head:6379 to have room: ")
        outcome = [line.partition(" to have room: ")[2] for line in message]
        assert outcome == ["3 workers, 0 GPUs", "3 workers, 1 GPU", "3 workers, 2 GPUs"]

    def test_nodes_that_do_not_join_are_an_error_in_the_end(self, wait, message):
        with pytest.raises(RunError) as error:
            wait(17, "cpu", lambda: {"CPU": 16.0}, patience=0.1)
        assert str(error.value) == (
            "engine.workers: engine.device gives each a CPU, and the cluster at head:6379 has too few "
            "(got 17 workers, 16 CPUs); lower engine.workers or add nodes"
        )
        assert len(message) == 1

    def test_what_others_use_is_waited_for_as_long_as_it_takes(self, wait, message):
        leaving = iter([{}, {"GPU": 1.0}, {"GPU": 2.0}])
        wait(2, "cuda", lambda: next(leaving), patience=math.inf)
        start = "waiting for the cluster at head:6379 to have room: 2 workers"
        assert message == [f"{start}, 0 GPUs", f"{start}, 1 GPU"]

    def test_who_is_asked_to_stop_waits_no_longer(self, wait):
        asked = iter([False, False, True])
        with pytest.raises(Stopped, match="the same command waits again"):
            wait(2, "cuda", lambda: {}, stopped=lambda: next(asked))
