"""Folders for sockets: a socket's whole path has about a hundred bytes, which a job's TMPDIR may use up."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import util

from spml_dist.errors import RunError

LONGEST = 103
"""bytes of a path: macOS takes no more, Linux 107"""
SHORT = "/tmp"
_PASSING = len("/pymp-abcdefgh/listener-abcdefgh")


@contextmanager
def folder(usual: str, below: int, say: Callable[[str], None]) -> Iterator[str | None]:
    """None where the usual folder is short enough, else a short one that is gone after the block.

    below: bytes that paths of sockets have beyond the folder's; say: is told of another folder.
    Raises RunError if none can be made.
    """
    if len(os.fsencode(usual)) + below <= LONGEST:
        yield None
        return
    try:
        short = tempfile.mkdtemp(prefix="spml-", dir=SHORT)
    except OSError as error:
        remedy = f"set TMPDIR to a folder of at most {LONGEST - below} letters"
        raise RunError(
            f"{usual}: too long for sockets, and {SHORT} cannot be written", error, remedy
        ) from error
    say(f"TMPDIR is too long for sockets ({usual}): Ray's files lie in {short}")
    try:
        yield short
    finally:
        shutil.rmtree(short, ignore_errors=True)


def of_this_process() -> None:
    """Let sockets that Python makes to pass on tensors lie in a short folder, whatever TMPDIR is."""
    usual = tempfile.gettempdir()
    if len(os.fsencode(usual)) + _PASSING > LONGEST and os.access(SHORT, os.W_OK):
        tempfile.tempdir = SHORT
        util.get_temp_dir()  # is made now, remembered, and removed when the process ends
        tempfile.tempdir = usual


def require_answer(address: str, patience: float, pause: float = 1) -> None:
    """Return once somebody answers at HOST:PORT; other addresses are left to those who use them.

    Raises RunError after so many seconds without an answer, at once for a host that there is not.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "/" in host:
        return
    deadline = time.monotonic() + patience
    remedy = "check RAY_ADDRESS (HOST:PORT of the head), that Ray runs there, and that no firewall is between"
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=max(1, patience / 2)):
                return
        except (OSError, OverflowError) as error:
            hopeless = isinstance(error, socket.gaierror | OverflowError) or int(port) > 65535
            if hopeless or time.monotonic() + pause > deadline:
                raise RunError("RAY_ADDRESS: nobody answers there", f"{address}: {error}", remedy) from error
        time.sleep(pause)
