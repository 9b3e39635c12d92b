"""Trying again what fails for a while: servers that are busy, connections that break off."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_exponential

from spml_dist.errors import DataError

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 16.0
"""seconds before the second attempt, doubled before each further one"""
FOR_GOOD = {400, 401, 403, 404, 405, 410}
"""answers of a server that another attempt does not change"""

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


def persistently(
    address: str, retry_seconds: float, attempt: Callable[[], Answer], done: str = "read"
) -> Answer:
    """The attempt's answer. It is made again while it fails, for so long; done: what an error says of it.

    Raises DataError, with the address and what was seen last; an OSError about a local file as it is.
    """
    start = time.monotonic()
    retrying = Retrying(
        retry=retry_if_exception(_may_pass),
        wait=wait_exponential(FIRST_PAUSE, LONGEST_PAUSE),
        stop=stop_before_delay(retry_seconds),
        before_sleep=partial(_log_pause, address),
        sleep=time.sleep,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except Exception as error:  # every file system of fsspec has exceptions of its own
        if _is_local(error):
            raise
        attempts, spent = retrying.statistics["attempt_number"], time.monotonic() - start
        tried = f" in {attempts} attempts, {spent:.0f} s" if attempts > 1 else ""
        remedy = "check the address, its server and the credentials in the environment"
        raise DataError(f"{address}: cannot be {done}{tried}", _text(error), remedy) from error


def _log_pause(address: str, state: RetryCallState) -> None:
    assert state.outcome is not None
    error = state.outcome.exception()
    log.warning("%s: %s; trying again in %.2g s", address, _text(error), state.upcoming_sleep)


def _may_pass(error: BaseException) -> bool:
    """Whether another attempt may succeed. An interrupt is none of an attempt's errors."""
    return isinstance(error, Exception) and not (_is_local(error) or _is_final(error))


def _is_local(error: Exception) -> bool:
    """Whether the error is about the target: a full disk, a folder that cannot be written."""
    return isinstance(error, OSError) and (
        error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)
    )


def _is_final(error: Exception) -> bool:
    refused = isinstance(error, FileNotFoundError | PermissionError | ImportError | ValueError)
    denied = type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")
    return refused or denied or getattr(error, "status", None) in FOR_GOOD


def _text(error: BaseException | None) -> str:
    return str(error) or type(error).__name__
