"""Spreading a function over processes of this machine."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from spml_dist.errors import RunError

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)
"""environment of a worker: there are as many workers as there shall be threads"""
_PATIENCE = 10
"""seconds that a worker has to end before it is killed"""


def spread(function: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """function(item) for every item, as they finish, by so many spawned processes."""
    waiting = iter(items)
    started: dict[Connection, BaseProcess] = {}
    try:
        with _one_thread(), _without_interrupts():
            for item in islice(waiting, workers):
                pipe, process = _start(function)
                started[pipe] = process
                _ask(pipe, process, item)
        running = set(started)
        while running:
            for pipe in wait(running):
                result = _answer(pipe, started[pipe])
                running.discard(pipe)
                for item in islice(waiting, 1):
                    _ask(pipe, started[pipe], item)
                    running.add(pipe)
                yield result
    finally:
        _end(started)


def _start(function: Callable[[Any], Any]) -> tuple[Connection, BaseProcess]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, function), daemon=True)
    process.start()
    theirs.close()  # so that ours ends when the process does
    return ours, process


def _ask(pipe: Connection, process: BaseProcess, item: Any) -> None:
    try:
        pipe.send(item)
    except OSError as end:
        raise _died(process) from end


def _answer(pipe: Connection, process: BaseProcess) -> Any:
    try:
        result, error = pipe.recv()
    except (EOFError, OSError) as end:
        raise _died(process) from end
    if error is not None:
        raise error
    return result


def _died(process: BaseProcess) -> RunError:
    process.join(_PATIENCE)
    status = process.exitcode
    seen = f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"
    remedy = "if memory ran out take fewer workers; the same command goes on"
    return RunError(f"worker process {process.pid}: died", seen, remedy)


def _end(started: dict[Connection, BaseProcess]) -> None:
    for process in started.values():
        process.terminate()
    for pipe, process in started.items():
        process.join(_PATIENCE)
        process.kill()
        process.join()
        pipe.close()


def _work(pipe: Connection, function: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what lies half done is put away
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(function, item))


def _outcome(function: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None]:
    try:
        return function(item), None
    except Exception as error:
        sent = _portable(error)
        sent.add_note(f"in a worker process: {traceback.format_exc()}")
        return None, sent


def _portable(error: Exception) -> Exception:
    """The error itself, or what it says where it would not come out of a pipe as it went in."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:  # an __init__ of its own, a lock, a module that is not found: anything
        pass
    place = traceback.extract_tb(error.__traceback__)[-1]
    said = f"{type(error).__name__}: {error}, at {place.filename}:{place.lineno}: {place.line}"
    return RunError("a worker process failed", said, "with --debug its traceback is shown")


def _end_with_parent() -> None:
    parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that are started in the block use one thread each."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ |= ONE_THREAD
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started in the block do not hear of Ctrl-C, which a terminal sends to all that it runs."""
    resource_tracker.ensure_running()  # it would let interrupts through as it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
