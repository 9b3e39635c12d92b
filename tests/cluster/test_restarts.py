"""After a failure workers start again, as long as that leads further."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spml_dist.cluster.restarts import Failure, WorkersFailed, repeated
from spml_dist.errors import DataError, RunError


class Training:
    """Attempts that reach these steps and fail, and then one that comes to its end."""

    def __init__(self, *steps: int, error: Callable[[], Exception] = lambda: OSError("gone")):
        self.steps, self.error = list(steps), error
        self.reached, self.attempts = 0, 0
        self.failures: list[Failure] = []

    def attempt(self) -> None:
        self.attempts += 1
        if self.steps:
            self.reached = self.steps.pop(0)
            raise self.error()

    def run(self, most: int = -1, stopped: bool = False) -> list[Failure]:
        asked = lambda: stopped  # noqa: E731
        outcome = self.failures.append
        repeated(self.attempt, most=most, reached=lambda: self.reached, failed=outcome, stopped=asked)
        return self.failures


def test_what_does_not_fail_is_done_once():
    training = Training()
    assert training.run() == [] and training.attempts == 1


def test_every_failure_that_got_further_is_followed_by_another_start():
    training = Training(3, 5, 40, 41)
    failures = training.run()
    assert [(each.number, each.step, each.reason) for each in failures] == [
        (number, step, "OSError: gone") for number, step in enumerate((3, 5, 40, 41), start=1)
    ]
    assert training.attempts == 5 and "Traceback" in failures[0].traceback


def test_once_without_progress_may_be_an_accident():
    assert Training(3, 3, 5, 4, 6).run()


@pytest.mark.parametrize("steps", [(0, 0), (3, 3, 3), (5, 4, 5), (5, 2, 1)])
def test_twice_without_progress_is_none(steps):
    training = Training(*steps, 9)
    with pytest.raises(RunError, match=rf"failed 2 times in a row and got no further than step {steps[-1]}"):
        training.run()
    assert len(training.failures) == training.attempts == len(steps)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_no_more_than_the_configured_number_are(most):
    training = Training(1, 2, 3)
    with pytest.raises(
        RunError,
        match=r"workers failed.*OSError: gone.*engine.max_failures"
        if most == 0
        else "more than engine.max_failures",
    ):
        training.run(most)
    assert training.attempts == most + 1


def test_a_mistake_of_the_user_would_only_come_again():
    training = Training(1, error=lambda: DataError("a.tar: torn"))
    with pytest.raises(DataError, match="torn"):
        training.run()
    assert training.attempts == 1 and not training.failures


def test_who_asked_to_stop_gets_no_new_workers():
    training = Training(1)
    with pytest.raises(RunError, match="while they were asked to stop"):
        training.run(stopped=True)
    assert training.attempts == 1


def test_the_reason_names_every_rank_and_the_traceback_has_what_each_raised():
    def lost() -> Exception:
        try:
            raise ValueError("first line\nsecond line")
        except ValueError as error:
            return WorkersFailed({0: RuntimeError("closed by peer"), 1: error})

    (failure,) = Training(1, error=lost).run()
    assert failure.reason == "rank 0: RuntimeError: closed by peer; rank 1: ValueError: first line"
    assert "second line" in failure.traceback and "Traceback" in failure.traceback
