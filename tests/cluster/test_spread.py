"""What a worker raised is found, Ctrl-C is the caller's, a growing log is shown."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from spml_dist import cluster
from spml_dist.cluster import ray_cluster
from spml_dist.errors import DataError


class TestCause:
    def test_a_users_mistake_is_found_among_its_consequences(self):
        mistake = DataError("x.tar: damaged", None, "pack again")
        failures = {0: RuntimeError("connection closed by peer"), 1: mistake}
        assert ray_cluster._cause(SimpleNamespace(worker_failures=failures)) is mistake

    def test_other_failures_are_all_shown(self):
        failures = {0: RuntimeError("connection closed by peer"), 1: ZeroDivisionError("here")}
        assert ray_cluster._cause(SimpleNamespace(worker_failures=failures)).failures == failures

    def test_what_did_not_come_from_a_worker_stays_what_it_is(self):
        error = ConnectionError("the head is gone")
        assert ray_cluster._cause(error) is error


class TestInterruptible:
    def test_what_the_call_raised_comes_back(self):
        def fail(error: type[BaseException]):
            raise error("so")

        assert ray_cluster._interruptible(lambda: 5) is None
        for error in (ValueError, SystemExit, KeyboardInterrupt):
            assert isinstance(ray_cluster._interruptible(lambda error=error: fail(error)), error)

    def test_an_interrupt_is_the_callers_whatever_the_call_does(self):
        # A shell's background jobs are started with SIGINT ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        over = threading.Event()
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            ray_cluster._interruptible(lambda: over.wait(200))
        signal.signal(signal.SIGINT, before)
        assert not over.is_set()
        over.set()


class TestFollowing:
    @pytest.fixture
    def log(self, tmp_path: Path) -> Path:
        return tmp_path / "train.log"

    def test_every_new_line_is_shown_once_and_in_order_by_the_end_of_the_block(self, log: Path):
        shown = []
        log.write_text("from before\n")
        with cluster.following(log, shown.append), log.open("a") as file:
            for number in range(5):
                print("line", number, file=file, flush=True)
        assert shown == [f"line {number}" for number in range(5)]

    def test_a_file_that_comes_later_is_followed(self, log: Path):
        shown = []
        with cluster.following(log, shown.append):
            log.write_text("first\n")
        assert shown == ["first"]

    def test_a_line_is_shown_whole_while_the_block_still_runs(self, log: Path):
        seen, shown = threading.Event(), []

        def show(text: str) -> None:
            shown.append(text)
            seen.set()

        with cluster.following(log, show), log.open("a") as file:
            print("half a li", end="", file=file, flush=True)
            time.sleep(1)
            assert shown == []
            print("ne", file=file, flush=True)
            assert seen.wait(60)
        assert shown == ["half a line"]

    def test_a_letter_that_is_half_written_is_waited_for(self, log: Path):
        shown = []
        with cluster.following(log, shown.append), log.open("ab") as file:
            for part in ("猫".encode()[:1], "猫".encode()[1:] + b"\n\xff\n"):
                file.write(part)
                file.flush()
                time.sleep(1)
        assert shown == ["猫", "\N{REPLACEMENT CHARACTER}"]

    def test_it_ends_with_a_block_that_fails(self, log: Path):
        threads = threading.active_count()
        with pytest.raises(ValueError, match="over"), cluster.following(log, print):
            raise ValueError("over")
        assert threading.active_count() == threads
