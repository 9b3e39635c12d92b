"""Whether the nodes of a cluster are alike and reach one another and the storage: doctor.py on each of them.

Two rounds of one function a node: `look` examines each by itself, `meet` lets all of them meet at once.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from spml_dist.config import Config
from spml_dist.errors import SpmlError
from spml_dist.training import doctor
from spml_dist.training.doctor import Finding

CLOCKS = 5.0
"""seconds that clocks may differ: by more, the order of what logs and shared files tell is another one"""
MEETING_SECONDS = 60
"""that nodes may take to find one another"""
ROUND_TRIPS = 10
MESSAGE = 1 << 20
"""floats of one round trip"""


@dataclass(frozen=True)
class Look:
    """What one node said of itself."""

    findings: tuple[Finding, ...]
    port: int
    """that was free"""


@dataclass(frozen=True)
class Meeting:
    """What one node found when all met."""

    seconds: float
    """of a round trip of MESSAGE floats over all nodes"""
    clock: float
    """seconds since the epoch, read at the same moment on all nodes"""
    unread: tuple[int, ...]
    """nodes whose file in the storage it did not see"""


def examine(config: Config | None) -> Iterator[Finding]:
    """Look at every node of the cluster that RAY_ADDRESS names; findings as they come.

    config: with absolute paths; None = the machines alone. Each node writes a small file into the output
    folder, which is taken away again. RunError: no cluster answers there.
    """
    from spml_dist import cluster

    need = doctor.needed(config) if config else 0  # once, and not by every node
    with cluster.nodes() as nodes:
        yield Finding("nodes", ", ".join(nodes.names))
        looks = nodes.each(partial(look, config, need))
        yield from compared(dict(zip(nodes.names, looks, strict=True)))
        if len(looks) < 2:
            return
        place, output = f"{nodes.addresses[0]}:{looks[0].port}", Path(config.output) if config else None
        try:
            found = nodes.each(partial(meet, place, output, uuid.uuid4().hex))
        except SpmlError as error:
            yield Finding("round trip", str(error), "let every node reach every other one on all ports")
            return
        yield from met(nodes.names, found, output)


def look(config: Config | None, need: int, number: int, count: int) -> Look:
    """On a node: what `doctor.examine` finds there, and a free port. need: bytes of a worker."""
    findings = tuple(doctor.examine(config, count, lambda: need))
    with socket.socket() as probe:
        probe.bind(("", 0))
        return Look(findings, probe.getsockname()[1])


def meet(place: str, output: Path | None, key: str, number: int, count: int) -> Meeting:
    """On every node at once: a round trip, the clocks, and whether each sees what the others have written.

    place: HOST:PORT of the first node; key: of this meeting's files. Raises what torch raises where they do
    not find one another within MEETING_SECONDS.
    """
    import torch

    from spml_dist import comm

    own = output / f".doctor-{key}-{number}" if output else None
    if own:
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(str(number))
    try:
        comm.meet("gloo", place, number, count, MEETING_SECONDS)
        message = torch.ones(MESSAGE)
        comm.sum_all(message)
        start = time.perf_counter()
        for _ in range(ROUND_TRIPS):
            comm.sum_all(message)
        seconds = (time.perf_counter() - start) / ROUND_TRIPS
        comm.barrier()
        clock = time.time()
        files = [output / f".doctor-{key}-{other}" for other in range(count)] if output else []
        unread = tuple(other for other, file in enumerate(files) if not _holds(file, str(other)))
        comm.barrier()
        comm.leave()
    finally:
        if own:
            own.unlink(missing_ok=True)
    return Meeting(seconds, clock, unread)


def _holds(file: Path, text: str, patience: float = 10) -> bool:
    """Whether it has this content, at the latest after a while: shared storage may be behind."""
    deadline = time.monotonic() + patience
    while True:
        try:
            os.listdir(file.parent)  # lets NFS look again
            if file.read_text() == text:
                return True
        except OSError:
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def compared(looks: Mapping[str, Look]) -> Iterator[Finding]:
    """Findings of all nodes, by the nodes' names: once where they agree, else each by its node."""
    for name in dict.fromkeys(finding.name for one in looks.values() for finding in one.findings):
        found = {node: each for node, one in looks.items() for each in one.findings if each.name == name}
        if len(set(found.values())) == 1:
            yield next(iter(found.values()))
        elif name in doctor.VERSIONS:
            seen = "; ".join(f"{each.value} on {node}" for node, each in found.items())
            yield Finding(name, seen, "install the same version on every node")
        else:
            yield from (replace(each, name=f"{name}, {node}") for node, each in found.items())


def met(names: Sequence[str], found: Sequence[Meeting], output: Path | None) -> Iterator[Finding]:
    """What a meeting came to."""
    slowest = max(one.seconds for one in found)
    rate = MESSAGE * 4 / slowest / 1e6
    yield Finding("round trip", f"{1000 * slowest:.1f} ms for 4 MB over all nodes, {rate:,.0f} MB/s (gloo)")
    (early, first), (late, last) = (
        pick(zip(names, found, strict=True), key=lambda pair: pair[1].clock) for pick in (min, max)
    )
    apart = last.clock - first.clock
    remedy = "let all nodes follow one clock (NTP)" if apart > CLOCKS else ""
    yield Finding("clocks", f"{apart:.1f} s between {early} and {late}", remedy)
    if output:
        blind = [
            f"{name} does not see what {', '.join(names[other] for other in one.unread)} wrote"
            for name, one in zip(names, found, strict=True)
            if one.unread
        ]
        seen = "; ".join(blind) or f"{output}: every node sees what the others write"
        remedy = "choose an output= that all nodes share" if blind else ""
        yield Finding("shared storage", seen, remedy)
