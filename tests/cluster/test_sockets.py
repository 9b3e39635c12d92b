"""Sockets under a long TMPDIR, and addresses where nobody answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spml_dist.cluster import sockets
from spml_dist.errors import RunError


def test_a_short_folder_is_left_as_it_is():
    with sockets.folder("/tmp", 50, pytest.fail) as folder:
        assert folder is None


def test_in_the_place_of_a_long_one_there_is_a_short_one_for_a_while():
    message = []
    with sockets.folder("/scratch/" + "x" * 90, 50, message.append) as folder:
        assert len(folder) + 50 <= sockets.LONGEST and Path(folder).is_dir()
    assert not Path(folder).exists()
    assert len(message) == 1 and "TMPDIR is too long" in message[0] and folder in message[0]


def test_where_none_can_be_made_the_length_is_told(monkeypatch):
    monkeypatch.setattr(sockets, "SHORT", "/nowhere")
    with (
        pytest.raises(RunError, match="set TMPDIR to a folder of at most 53 letters"),
        sockets.folder("x" * 90, 50, print),
    ):
        pass


def test_processes_pass_on_tensors_under_a_long_tmpdir(tmp_path):
    long = tmp_path / ("scratch_of_the_job_" * 5)
    long.mkdir()
    code = "from multiprocessing.connection import Listener; from spml_dist.cluster import sockets;"
    code += "sockets.of_this_process(); import tempfile;"
    code += "print(tempfile.gettempdir(), Listener(family='AF_UNIX').address)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command,
        env=os.environ | {"TMPDIR": str(long)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    usual, address = done.stdout.split()
    assert usual == str(long) and address.startswith("/tmp/pymp-") and not Path(address).parent.exists()


def test_who_answers_is_found():
    with socket.create_server(("127.0.0.1", 0)) as server:
        sockets.require_answer(f"127.0.0.1:{server.getsockname()[1]}", patience=5)


@pytest.mark.parametrize("address", ["auto", "ray://127.0.0.1:10001", "http://127.0.0.1:8265", "local"])
def test_other_kinds_of_addresses_are_left_to_ray(address):
    sockets.require_answer(address, patience=0)


def test_an_address_where_nobody_answers_is_one_line_in_time():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(
        RunError, match=rf"RAY_ADDRESS: nobody answers there \(got 127.0.0.1:{port}.*check RAY"
    ):
        sockets.require_answer(f"127.0.0.1:{port}", patience=1, pause=0.2)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("address", ["no.such.host.invalid:6379", "127.0.0.1:99999999"])
def test_an_address_that_there_is_not_is_told_at_once(address):
    start = time.monotonic()
    with pytest.raises(RunError, match="nobody answers there"):
        sockets.require_answer(address, patience=300)
    assert time.monotonic() - start < 60
