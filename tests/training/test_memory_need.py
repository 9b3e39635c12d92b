"""What a configuration is reckoned to need, and what a process that trains it was seen to take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import psutil
import pytest

from spml_dist.config import load
from spml_dist.training.memory import need
from tests.conftest import SMALL, payload, work
from tests.spawn import spawn

LARGE = ("stream.crop=256", "stream.batch=8", "schedule.steps=2", "schedule.warmup=1")
ALONE = ("engine.workers=1", "tracking.previews=0")


def config(*words: str):
    return load(SMALL, ["engine.workers=1", *words])


def test_twice_the_images_keep_twice_as_much():
    one, two = (need(config(f"stream.batch={batch}"), 4) for batch in (4, 8))
    assert two.activations == pytest.approx(2 * one.activations, rel=0.01)
    assert two.segments == pytest.approx(2 * one.segments, rel=0.01) and two.parameters == one.parameters


def test_workers_share_images_and_what_zero_splits():
    alone = need(config(), 4)
    shared = need(config("engine.workers=2", "engine.zero_stage=3"), 4)
    for ours, theirs in zip(astuple(shared), astuple(alone), strict=True):
        assert ours == pytest.approx(theirs / 2, rel=0.02)


def test_what_the_optimiser_and_the_momentum_encoder_remember_counts():
    numbers = need(config(), 4).parameters / 12  # weights, gradients and momentum, of 4 bytes each
    assert need(config("optimizer.kind=adamw", "optimizer.lr=1e-4"), 4).parameters == 16 * numbers
    assert need(config("bank.encoder_momentum=0.99"), 4).parameters == 16 * numbers


def test_of_a_range_it_is_what_the_fewest_need():
    assert need(config("engine.workers=[1, 2]"), 4) == need(config(), 4)


def measured(rank: int, runs: list[dict]) -> int:
    """Bytes that the second run takes at most beyond what was there after the first."""
    process, over, peak = psutil.Process(), threading.Event(), [0]

    def watch() -> None:
        while not over.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss)

    work(rank, runs[:1])
    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    work(rank, runs[1:])
    over.set()
    watcher.join()
    return peak[0] - before


@pytest.mark.timeout(600)
def test_a_run_takes_about_what_was_reckoned(experiment: Callable[..., list[str]], tmp_path: Path):
    """Beyond the parameters, which the allocator has kept from the run before."""
    words = experiment(tmp_path, "large", *LARGE, *ALONE)
    tiny = experiment(tmp_path, "tiny", "schedule.steps=1", "schedule.warmup=0", *ALONE)
    runs = [payload(tiny), payload(words)]
    (taken,) = spawn(measured, 1, runs, seconds=400)
    reckoned = need(load(words[0], words[1:]), 4)
    assert reckoned.activations + reckoned.segments == pytest.approx(taken, rel=0.4)
