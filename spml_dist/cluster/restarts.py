"""Trying again after a failure for as long as that leads further. It knows neither Ray nor trainings."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from spml_dist.errors import RunError, SpmlError

IDLE = 2
"""failures in a row without progress that end it: the second says that it is no accident"""


class WorkersFailed(Exception):
    """What workers raised, or died of, by rank."""

    def __init__(self, failures: Mapping[int, BaseException]):
        self.failures = dict(failures)
        super().__init__("; ".join(f"rank {rank}: {_line(each)}" for rank, each in failures.items()))
        for each in failures.values():
            self.add_note("".join(traceback.format_exception(each)))


@dataclass(frozen=True)
class Failure:
    """An attempt that failed."""

    number: int
    """counted from 1"""
    step: int
    """furthest step that it reached"""
    reason: str
    """a line"""
    traceback: str


def repeated(
    attempt: Callable[[], None],
    *,
    most: int,
    reached: Callable[[], int],
    failed: Callable[[Failure], None],
    stopped: Callable[[], bool],
) -> None:
    """Call attempt() until it returns.

    most: how many failures are followed by another attempt, -1 for any number; reached: the furthest step
    there is; failed: is told of every failure; stopped: whether somebody asks to stop, so that no attempt
    follows. What is no failure of a machine is raised as it is: an SpmlError, which would only come again.
    RunError: too many failures, or IDLE in a row that got no further than an attempt before.
    """
    furthest, idle, number = reached(), 0, 0
    while True:
        try:
            return attempt()
        except SpmlError:
            raise
        except Exception as error:
            number += 1
            failure = Failure(number, reached(), _line(error), "".join(traceback.format_exception(error)))
            failed(failure)
            idle = 0 if failure.step > furthest else idle + 1
            furthest = max(furthest, failure.step)
            if end := _end(failure, idle, most, stopped()):
                raise RunError(*end) from error


def _end(failure: Failure, idle: int, most: int, stopped: bool) -> tuple[str, str, str] | None:
    """Why no attempt follows: what, value and remedy of an error."""
    remedy = "the same command goes on from the last checkpoint"
    if stopped:
        return "workers failed while they were asked to stop", failure.reason, remedy
    if most == 0:
        return "workers failed", failure.reason, f"{remedy}; engine.max_failures starts them again"
    if failure.number > most >= 0:
        what = f"workers failed {failure.number} times, more than engine.max_failures"
        return what, failure.reason, remedy
    if idle >= IDLE:
        what = f"workers failed {idle} times in a row and got no further than step {failure.step}"
        return what, failure.reason, "RUN/restarts.jsonl has what each of them said"
    return None


def _line(error: BaseException) -> str:
    """The error's class and first sentence."""
    if isinstance(error, WorkersFailed):
        return str(error)
    first = next(iter(str(error).strip().splitlines()), "").split(". ")[0]
    return f"{type(error).__name__}: {first[:200]}" if first else type(error).__name__
