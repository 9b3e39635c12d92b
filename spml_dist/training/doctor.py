"""Whether a machine can train: what is there, what is reached, and what to do where it is not."""

from __future__ import annotations

import math
import os
import platform
import resource
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from spml_dist import __version__
from spml_dist.config import Config
from spml_dist.errors import SpmlError
from spml_dist.files import address

PACKAGES = ("torch", "timm", "deepspeed", "ray", "webdataset", "mlflow", "numpy", "opencv-python-headless")
INDEX = ("faiss-cpu", "faiss-gpu")
"""one of them is needed"""
OPEN_FILES = 4096
SHARED_MEMORY = 1.0
"""GB, of which a loader process or Ray takes some for every batch on its way"""
FREE_DISK = 5.0
"""GB beside which a few checkpoints of a large network with its bank find room"""
FREE_MEMORY = 2.0
"""GB for each worker of this machine, in main memory or of its GPU, where no experiment says more"""
BESIDE = {"cuda": 0.5, "cpu": 1.0}
"""GB that a worker has, of its GPU or of main memory, before it holds anything of its experiment"""
VERSIONS = ("spml-dist", *PACKAGES, "FAISS")
"""names of findings that have to be the same on all nodes"""


@dataclass(frozen=True)
class Finding:
    """What a check came to."""

    name: str
    value: str
    """what was seen"""
    remedy: str = ""
    """what to do; nothing where all is well"""

    @property
    def well(self) -> bool:
        return not self.remedy


def examine(
    config: Config | None = None, nodes: int = 1, need: Callable[[], int] | None = None
) -> Iterator[Finding]:
    """Look at this machine, and at what an experiment needs; findings as they come. Raises nothing.

    config: with absolute paths; None = the machine alone; nodes: machines that share the workers; need: bytes
    that a worker needs, by default reckoned here. One small file is written into its output folder and taken
    away again.
    """
    yield from _versions()
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("open files", _open_files),
        ("shared memory", _shared_memory),
    ]
    if not config:
        checks.append(("device", lambda: _device("auto", 1, FREE_MEMORY)))
    else:
        workers, remote = math.ceil(config.engine.most / nodes), config.checkpoint.remote
        need = need or partial(needed, config)
        checks += [
            ("device", lambda: _device(config.engine.device, workers, need() / 1e9)),
            ("output", lambda: _output(Path(config.output))),
            *([("checkpoint.remote", partial(_remote, remote))] if remote else []),
            ("data", lambda: _data(config)),
            ("MLflow", lambda: _mlflow(config.tracking.uri)),
        ]
    for name, check in checks:
        try:
            yield check()
        except SpmlError as error:
            value = error.what if error.value is None else f"{error.what}: {error.value}"
            yield Finding(name, value, error.remedy or "see the error")
        except Exception as error:  # of a library or the system: a finding too
            yield Finding(name, f"{type(error).__name__}: {error}".splitlines()[0], "mend what it names")


def _versions() -> Iterator[Finding]:
    yield Finding("spml-dist", f"{__version__}, Python {platform.python_version()}")
    for package in PACKAGES:
        found = _version(package)
        yield Finding(package, found or "not installed", "" if found else f"pip install {package}")
    index = next((f"{name} {found}" for name in INDEX if (found := _version(name))), None)
    yield Finding(
        "FAISS", index or "not installed", "" if index else "pip install 'spml-dist[cpu]', or [gpu]"
    )


def _version(package: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(package)
    return None


def _open_files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < OPEN_FILES
    return Finding("open files", f"{soft:,}", f"ulimit -n {OPEN_FILES}" if few else "")


def _shared_memory() -> Finding:
    size = shutil.disk_usage("/dev/shm").total / 1e9
    remedy = f"give it {SHARED_MEMORY:g} GB or more: docker run --shm-size, a volume of `medium: Memory`"
    return Finding("shared memory", f"{size:.1f} GB", remedy if size < SHARED_MEMORY else "")


def needed(config: Config) -> int:
    """Bytes of a worker, with the classes of its data, or of none that can be read as many as VOC has."""
    from spml_dist.data.format.manifest import read_manifest
    from spml_dist.training import memory

    try:
        classes = len(read_manifest(config.data.train).classes)
    except SpmlError:  # is a finding of its own
        classes = 21
    return memory.need(config, classes).total


def _device(choice: str, workers: int, need: float) -> Finding:
    """choice: engine.device; workers: of this machine; need: GB of each for its experiment."""
    import torch

    from spml_dist.inference.device import resolve_device
    from spml_dist.training.device import cores

    device = resolve_device(choice)
    each = max(FREE_MEMORY, need + BESIDE[device])
    about = f"a worker needs about {each:.1f} GB"
    remedy = "smaller stream.batch or stream.crop, more workers, or a higher engine.zero_stage"
    if device == "cuda":
        free = [torch.cuda.mem_get_info(number)[0] / 1e9 for number in range(torch.cuda.device_count())]
        gpus = ", ".join(
            f"{torch.cuda.get_device_name(i)} with {left:.1f} GB free" for i, left in enumerate(free)
        )
        full = any(left < each for left in free)
        return Finding(
            "device", f"{gpus}; {about}", f"end what fills it (nvidia-smi), or {remedy}" if full else ""
        )
    free_memory = psutil.virtual_memory().available / 1e9
    here = f"{workers} workers here, {about[2:]} each" if workers > 1 else about
    seen = f"{cores()} cores, {free_memory:.1f} GB free; {here}"
    return Finding("device", seen, remedy if free_memory < each * workers else "")


def _output(folder: Path) -> Finding:
    """Write, read and rename, as a checkpoint does."""
    first, second = (folder / f".doctor-{uuid.uuid4().hex}{end}" for end in (".tmp", ""))
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        first.write_text("well")
        os.replace(first, second)
        if second.read_text() != "well":
            return Finding("output", f"{folder} gives back something else", "use other storage")
        free = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        return Finding("output", f"{folder}: {error.strerror}", "choose another output=")
    finally:
        with suppress(OSError):
            for path in (first, second):
                path.unlink(missing_ok=True)
            for parent in made:
                parent.rmdir()
    return Finding("output", f"{folder}, {free:.0f} GB free", "make room" if free < FREE_DISK else "")


def _remote(place: str) -> Finding:
    """Store a small file, and remove it."""
    name = f".doctor-{uuid.uuid4().hex}"
    with tempfile.NamedTemporaryFile() as file:
        address.store(Path(file.name), f"{place.rstrip('/')}/{name}")
    address.remove(place, {name})
    return Finding("checkpoint.remote", place)


def _data(config: Config) -> Finding:
    from spml_dist.training import data_check

    manifest = data_check.check(config)
    return Finding("data", f"{manifest.samples:,} samples in {len(manifest.shards):,} shards, all there")


def _mlflow(uri: str) -> Finding:
    from spml_dist.tracking import mlflow_client, mlflow_sync

    if uri.startswith(mlflow_client.SQLITE) and not Path(uri.removeprefix(mlflow_client.SQLITE)).exists():
        return Finding("MLflow", f"{uri} will be made")
    try:
        mlflow_client.connect(uri).search_experiments(max_results=1)
    except Exception as error:  # whatever MLflow, its database or the network come up with
        remedy = "start it, or change tracking.uri; a training goes on without, and sends later"
        return Finding("MLflow", f"{mlflow_sync.shown(uri)}: {mlflow_sync.line(error)}", remedy)
    return Finding("MLflow", f"{mlflow_sync.shown(uri)} answers")
