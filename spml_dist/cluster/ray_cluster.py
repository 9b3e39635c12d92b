"""Work on a Ray cluster: the only file that knows Ray. It is handed functions and knows none."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from spml_dist.cluster import capacity, elastic, restarts, sockets
from spml_dist.cluster.elastic import Growth
from spml_dist.cluster.local_processes import ONE_THREAD
from spml_dist.cluster.restarts import Failure, WorkersFailed
from spml_dist.errors import RunError, SpmlError, Stopped

WORKER_ENVIRONMENT = {
    # glibc hands large buffers back to the system at every step; keeping them halves a step on a CPU.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
    # Threads that spin on a core which others use can take ten times as long as threads that sleep.
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}

ANSWER_SECONDS = 20
"""how long an address may be tried at which nobody answers"""
_PATIENCE = 10
"""seconds that Ray's processes have to end before they are killed"""
_SOCKET = len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.00")

GROWTH_SECONDS = 600
"""how long nodes may take to join a cluster: those of a job that has just begun, or of an autoscaler"""


def train(
    worker: Callable[[dict], None],
    payload: dict,
    *,
    name: str,
    workers: tuple[int, int],
    device: str,
    storage: Path,
    max_failures: int,
    reached: Callable[[], int],
    failed: Callable[[Failure], None],
    say: Callable[[str], None],
    stopped: Callable[[], bool],
    grow: Callable[[bool], None],
) -> None:
    """Run `worker(payload | {"device": "cuda" or "cpu"})` on processes that share a process group.

    On the cluster that RAY_ADDRESS names, else on a cluster of this machine's own that ends with the call.
    workers: fewest and most; they start with as many as there is room for. device: cuda reserves a GPU for
    every worker and cpu a core, auto is decided by what the cluster has; storage: folder that all nodes see;
    max_failures, reached, failed: as `restarts.repeated`, which starts all workers again after one has
    failed; say: is told where the workers compute and what is waited for; stopped: whether somebody asks to
    wait no longer, which raises Stopped; grow: asks the workers to save and raise Stopped, because there is
    room for more, or (False) takes that back. What others use is waited for without end. RunError: too few
    GPUs or cores, on the cluster that RAY_ADDRESS names still after GROWTH_SECONDS; this machine's own cores
    are shared; or that cluster answers no more. An SpmlError of a worker is raised here as it was there.
    """
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    if not os.environ.get("RAY_ADDRESS"):  # nobody preempts a machine's own cluster
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    with connected(workers[1], say=say):

        def attempt() -> None:
            fit = partial(_fit, worker, payload, name, storage)
            while _grown(fit, workers, device, say, stopped, reached, grow):
                pass

        restarts.repeated(attempt, most=max_failures, reached=reached, failed=failed, stopped=stopped)


def _grown(
    fit: Callable[[int, str], None],
    workers: tuple[int, int],
    device: str,
    say: Callable[[str], None],
    stopped: Callable[[], bool],
    reached: Callable[[], int],
    grow: Callable[[bool], None],
) -> bool:
    """Run the workers to their end, or (True) until they have saved because there is room for more."""
    grow(False)
    count, device = _placed(workers, device, say, stopped)
    wanted = partial(_requested, capacity.RESOURCE[device], 0, workers[1] - count)
    with Growth(wanted, reached, partial(grow, True)) as growth:
        error = _interruptible(partial(fit, count, device), growth.look if count < workers[1] else None)
    cause = _cause(error) if error is not None else None
    if isinstance(cause, Stopped) and growth.asked and not stopped():
        say("saved; there is room for more workers")
        return True
    if cause is not None:
        raise cause from None
    return False


def _fit(
    worker: Callable[[dict], None], payload: dict, name: str, storage: Path, workers: int, device: str
) -> None:
    """Run the workers once. Ray Train's own restarts would repeat what no restart mends, a user's mistake."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpu = device == "cuda"
    TorchTrainer(
        partial(_noted, worker),
        train_loop_config=payload | {"device": device},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(
            name=name, storage_path=str(storage), failure_config=FailureConfig(max_failures=0)
        ),
    ).fit()


def _placed(
    workers: tuple[int, int], device: str, say: Callable[[str], None], stopped: Callable[[], bool]
) -> tuple[int, str]:
    """How many workers start, and their device, once there is room. Ray itself would wait in silence, and
    would not hear who asks to stop."""
    from ray import available_resources, cluster_resources

    address, (fewest, most) = os.environ.get("RAY_ADDRESS"), workers
    where = f"the cluster at {address}" if address else "this machine"
    if address:  # of a head that is gone Ray would hear for a minute, and then end this process
        sockets.require_answer(address, ANSWER_SECONDS)
    device = capacity.device_for(device, fewest, cluster_resources)
    name = capacity.RESOURCE[device]
    room = partial(capacity.wait, fewest, device, where=where, say=say, stopped=stopped)
    if not address:
        room(cluster_resources, patience=0)
        count = min(most, int(cluster_resources()[name]))
    else:
        with _requested(name, fewest, most - fewest) as granted:
            room(cluster_resources, patience=GROWTH_SECONDS)
            # Until the jobs of others leave some, or nodes are added.
            room(lambda: {name: fewest} if granted() else available_resources(), patience=math.inf)
            count = max(fewest, elastic.settled(granted, most, stopped))
    gpus = capacity.counted(cluster_resources().get("GPU", 0), "GPU")
    of_most = f" of at most {most}" if fewest < most else ""
    say(f"{count} workers{of_most} on {device}; {where} has {gpus}")
    return count, device


@contextmanager
def _requested(resource: str, together: int, single: int) -> Iterator[elastic.Room]:
    """Let an autoscaler see what is wanted: it adds nodes for placement groups that wait. Yields how many
    workers the cluster has set room aside for, which ends with the block.

    together: so many have it all at once or not at all, lest two trainings wait for each other's half;
    single: so many more, each as it comes.
    """
    from ray.util import placement_group, placement_group_table, remove_placement_group

    def granted(group: Any) -> bool:
        # Not `group.wait`, by which a head that answers late says no: it would be asked for ever.
        return placement_group_table(group).get("state") == "CREATED"

    groups = [placement_group([{resource: 1}] * size) for size in ([together] if together else [])]
    groups += [placement_group([{resource: 1}]) for _ in range(single)]
    try:
        yield lambda: sum(group.bundle_count for group in groups if granted(group))
    finally:
        for group in groups:
            remove_placement_group(group)


@dataclass(frozen=True)
class Nodes:
    """Machines of a cluster."""

    names: list[str]
    """no two are the same"""
    addresses: list[str]
    """by which they reach one another"""
    _identities: list[str]

    def each(self, function: Callable[[int, int], Any]) -> list[Any]:
        """function(number of the node, how many there are) on all nodes at once, without reserving anything.

        RunError, naming the node, for what is raised or cannot run there.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # Also a task without a GPU of its own sees those of its node.
        seen = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}
        task = ray.remote(num_cpus=0, max_retries=0, runtime_env=seen)(_called)
        running = [
            task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                function, number, len(self.names)
            )
            for number, node in enumerate(self._identities)
        ]
        return [self._result(name, reference) for name, reference in zip(self.names, running, strict=True)]

    @staticmethod
    def _result(name: str, reference: Any) -> Any:
        import ray

        try:
            return ray.get(reference)
        except Exception as error:  # of the function, of Ray, of a package that is not there
            cause = getattr(error, "cause", error)
            what = f"node {name}: {type(cause).__name__}"
            raise RunError(what, str(cause).strip().splitlines()[-1], "mend what it names") from error


def _called(function: Callable[..., Any], *given: Any) -> Any:
    """What Ray can make a task of, which it cannot of a functools.partial."""
    return function(*given)


@contextmanager
def nodes() -> Iterator[Nodes]:
    """Of the cluster that RAY_ADDRESS names, connected while the block runs. RunError: none answers there."""
    with connected(1, {}):
        import ray

        alive = sorted((each for each in ray.nodes() if each["Alive"]), key=lambda each: each["NodeID"])
        hosts = [each["NodeManagerHostname"] for each in alive]
        names = [
            host if hosts.count(host) == 1 else f"{host}#{number}"
            for number, host in enumerate(hosts, start=1)
        ]
        yield Nodes(names, [each["NodeManagerAddress"] for each in alive], [each["NodeID"] for each in alive])


def spread(function: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """function(item) for every item, as they finish, by so many Ray tasks at a time of one core each.

    Relative paths mean on a worker what they mean here. Ray itself repeats the task of a worker that dies.
    """
    waiting = iter(items)
    with connected(workers, ONE_THREAD):
        import ray
        from ray.exceptions import RayError, RayTaskError

        task = ray.remote(num_cpus=1)(_applied)
        reference = [ray.put(function)]  # in a list, because Ray would unpack an argument for every task
        running = [task.remote(reference, os.getcwd(), item) for item in islice(waiting, workers)]
        while running:
            (done,), running = ray.wait(running, num_returns=1)
            try:
                result = ray.get(done)
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:
                raise RunError("a Ray worker failed", str(error), "the same command goes on") from error
            running += [task.remote(reference, os.getcwd(), item) for item in islice(waiting, 1)]
            yield result


def _applied(reference: list, folder: str, item: Any) -> Any:
    os.chdir(folder)
    return _unpacked(reference[0])(item)


@lru_cache(maxsize=1)
def _unpacked(reference: Any) -> Callable[[Any], Any]:
    import ray

    return ray.get(reference)


@contextmanager
def connected(
    workers: int,
    environment: Mapping[str, str] = WORKER_ENVIRONMENT,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[None]:
    """Connected to the cluster that RAY_ADDRESS names, else to one of this machine that ends with the block.

    workers: cores that its own cluster has at least; environment: of all workers. RunError: it cannot be had.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    address, before = os.environ.get("RAY_ADDRESS"), _children()
    terminated = signal.getsignal(signal.SIGTERM)
    with _existing(address, say) if address else _own(workers, say) as where:
        try:
            with _without_termination():
                ray.init(
                    **where,
                    runtime_env={"env_vars": dict(environment)},
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except Exception as problem:  # of a machine too busy to start it Ray says so by a plain Exception
            cause = f"{address or 'a local cluster'}: {problem}"
            remedy = "try again, or train without it: --alone or torchrun"
            raise RunError("Ray cannot be started or reached", cause, remedy) from problem
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, terminated)  # Ray has put its own there, which aborts
        for quiet in ("ray", "ray.train", "ray.data"):
            logging.getLogger(quiet).setLevel(logging.ERROR)
        try:
            yield
        finally:
            started = _children() - before
            ray.shutdown()
            _end(started)


@contextmanager
def _existing(address: str, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """What starts Ray on somebody's cluster. RunError: nobody answers, or nobody that speaks as Ray does."""
    from ray import _raylet

    sockets.require_answer(address, ANSWER_SECONDS)
    if re.fullmatch(r"[^/]+:\d+", address):
        say(f"looking for the Ray cluster at {address}")
        try:
            _raylet.GcsClient(address=address)  # type: ignore[attr-defined]  # compiled, without stubs
        except Exception as problem:  # Ray itself would ask for minutes, and not say so
            remedy = "give HOST:PORT of the head, as `ray start` has printed it, with Ray of the same version"
            raise RunError(
                "RAY_ADDRESS: no Ray cluster answers there", f"{address}: {problem}", remedy
            ) from problem
    yield {"address": address}


@contextmanager
def _own(workers: int, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """What starts a cluster on this machine."""
    usual = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    with sockets.folder(usual, _SOCKET, say) as folder:
        cores = max(os.cpu_count() or 1, workers)
        where = {"address": "local", "num_cpus": cores, "include_dashboard": False}
        yield where | ({"_temp_dir": folder} if folder else {})


@contextmanager
def _without_termination() -> Iterator[None]:
    """Processes that are started in the block never hear of SIGTERM, nor do those that they start.

    srun, scancel, systemd and `docker stop` send it to all processes. Whoever started the training answers
    it, and needs its workers to come to a step that can be saved; afterwards they are ended from here.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _end(started: set[psutil.Process]) -> None:
    """Wait for Ray's processes to end, as workers do when their node is gone, and kill what is left."""
    _, alive = psutil.wait_procs(started, timeout=_PATIENCE)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=_PATIENCE)


def _noted(worker: Callable[[dict], None], payload: dict) -> None:
    """The worker, with the traceback as a note on what it raises: Ray passes on the exception alone."""
    from ray.train import get_context

    try:
        worker(payload)
    except Exception as error:
        error.add_note(f"on rank {get_context().get_world_rank()}: {traceback.format_exc()}")
        raise


def _interruptible(
    call: Callable[[], object], look: Callable[[], None] | None = None
) -> BaseException | None:
    """What the call raised. It runs beside the main thread, where Ray would answer Ctrl-C in its own way.

    look: is called every LOOK_SECONDS meanwhile.
    """
    raised = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="ray train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(elastic.LOOK_SECONDS if look else None)
        if look and thread.is_alive():
            look()
    return raised[0] if raised else None


def _cause(error: BaseException) -> BaseException:
    """A worker's own SpmlError if there is one, else all that the workers raised, else Ray's error."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        if isinstance(failure, SpmlError):
            return failure
    return WorkersFailed(failures) if failures else error
