"""Spreading a function over processes of this machine, by a pool of the standard library.

What the pool does not do by itself is added here: it ends within a moment although its workers are busy, also
when its own process is killed; workers compute in one thread each and do not hear of Ctrl-C; an error of any
class arrives; and one that died is named, with its signal.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any

from spml_dist.errors import RunError

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)
"""environment of a worker: there are as many workers as there shall be threads"""
_PATIENCE = 10
"""seconds that a worker has to end before it is killed"""
_TERMINATED = 128 + signal.SIGTERM
"""exit status of a worker that was asked to end"""

Function = Callable[[Any], Any]
Outcome = tuple[Any, Exception | None]
"""what a function returned, or raised"""


def spread(function: Function, items: Iterable[Any], workers: int) -> Iterator[Any]:
    """function(item) for every item, as they finish, by so many spawned processes."""
    waiting = iter(items)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (function,))
    processes: dict[int, BaseProcess] = {}
    try:
        # No more are submitted than can run: items and results of a large set would fill the memory.
        running = {_submit(pool, processes, item) for item in islice(waiting, workers)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                result, error = future.result()
                if error is not None:
                    raise error
                running |= {_submit(pool, processes, item) for item in islice(waiting, 1)}
                yield result
    except BrokenProcessPool as broken:
        _end(pool, processes)
        raise _death(processes) from broken
    finally:
        _end(pool, processes)


def _submit(pool: ProcessPoolExecutor, processes: dict[int, BaseProcess], item: Any) -> Future[Outcome]:
    with (
        _one_thread(),
        _without_interrupts(),
    ):  # a submission may start a process
        future = pool.submit(_outcome, item)
    processes.update(pool._processes)  # it forgets them when it ends
    return future


def _end(pool: ProcessPoolExecutor, processes: dict[int, BaseProcess]) -> None:
    """End all workers, whatever they are at; a shutdown alone would wait for them."""
    for process in processes.values():
        process.terminate()
    for process in processes.values():
        process.join(_PATIENCE)
        process.kill()
    pool.shutdown(cancel_futures=True)


def _death(processes: dict[int, BaseProcess]) -> RunError:
    """Why a pool is broken. Its other workers were asked to end for that."""
    ends = [(process.exitcode in (_TERMINATED, -signal.SIGTERM), pid) for pid, process in processes.items()]
    _, pid = min(ends)
    status = processes[pid].exitcode
    end = f"signal {-status}" if status is not None and status < 0 else f"exit status {status}"
    remedy = "if memory ran out take fewer workers; the same command goes on"
    return RunError(f"worker process {pid}: died", end, remedy)


_function: Function
"""in a worker, what it applies: it comes once, not with every item"""


def _begin(function: Function) -> None:
    """Prepare a worker."""
    global _function
    _function = function
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))  # so that what lies half done is put away
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _outcome(item: Any) -> Outcome:
    try:
        return _function(item), None
    except SystemExit:  # the pool would send it home and go on with the next item
        os._exit(_TERMINATED)
    except Exception as error:
        portable = _portable(error)
        portable.add_note(f"in a worker process: {traceback.format_exc()}")
        return None, portable


def _portable(error: Exception) -> Exception:
    """The error itself, or its text where it would not come out of a pipe as it went in."""
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:  # an __init__ of its own, a lock, a module that is not found: anything
        pass
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error}, at {place.filename}:{place.lineno}: {place.line}"
    return RunError("a worker process failed", text, "with --debug its traceback is shown")


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
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
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
