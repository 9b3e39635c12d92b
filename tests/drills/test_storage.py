"""The storage of a training is taken away for real: room on the disk, the right to write; and a training is
asked to stop, or started twice. Not on Ray, whose part in it test_worker_killed.py has.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.drills.running import finish, made_again, record, resumed_from, training
from tests.drills.same_run import assert_same, logged, seconds_to_go_on
from tests.training.test_checkpoint import BRIEFLY

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1800)]

STEPS, EVERY = 40, 4


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def words(experiment, output: Path):
    """words(name): what follows `spml-dist train`, for one process."""

    def given(name: str, place: Path = output, *changes: str) -> list[str]:
        every = (f"schedule.steps={STEPS}", f"checkpoint.every={EVERY}")
        return [*experiment(place, name, *BRIEFLY, *every, *changes), "--alone"]

    return given


@pytest.fixture(scope="module")
def undisturbed(words, output: Path) -> Path:
    finish(output / "undisturbed", words("undisturbed"))
    return output / "undisturbed"


@contextmanager
def mounted(place: Path, megabytes: int) -> Iterator[None]:
    place.mkdir()
    size = ["-o", f"size={megabytes}m"]
    if subprocess.run(["mount", "-t", "tmpfs", *size, "none", str(place)], check=False).returncode:
        pytest.skip("only root can mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def goes_on(folder: Path, given: list[str], undisturbed: Path, drill: str, done: str) -> None:
    """The same command again, after what was wrong is mended; the row of the drill."""
    step, mended = logged(folder)[-1]["step"], time.time()
    finish(folder, given)
    assert_same(folder, undisturbed)
    lost, seconds = made_again(step, resumed_from(folder)[-1]), seconds_to_go_on(folder, mended, step)
    record(drill, f"{done} after step {step}; mended, and the same command", lost, seconds)


def test_the_disk_is_full(words, undisturbed, tmp_path: Path):
    place = tmp_path / "disk"
    with mounted(place, 64):
        given = words("full", place)
        folder = place / "full"
        with training(folder, given) as run:
            run.wait_for_step(9)
            filling = place / "filling"
            with pytest.raises(OSError, match="No space"), filling.open("wb") as file:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            status, error = run.end()
        assert status == 2 and "cannot be written" in error and "No space" in error, error
        assert error.count("\n") == 1 or "Traceback" not in error
        filling.unlink()
        goes_on(folder, given, undisturbed, "disk full", "no byte left on the disk")


def test_the_storage_becomes_read_only(words, undisturbed, tmp_path: Path):
    place = tmp_path / "disk"
    with mounted(place, 256):
        given, folder = words("readonly", place), place / "readonly"
        with training(folder, given) as run:
            run.wait_for_step(9)
            # Files that are open for writing forbid it to a whole file system; these stay writable here.
            subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
            try:
                status, error = run.end()
            finally:
                subprocess.run(["umount", "--lazy", str(place)], check=True)
        assert status == 2 and "cannot be written" in error and "Traceback" not in error, error
        goes_on(folder, given, undisturbed, "storage read-only", "storage mounted read-only")


def test_sigterm_saves_and_the_job_that_is_queued_again_goes_on(words, undisturbed, output):
    given, folder = words("term"), output / "term"
    with training(folder, given) as run:
        run.wait_for_step(9)
        asked = time.time()
        run.process.send_signal(signal.SIGTERM)
        status, error = run.end()
        grace = time.time() - asked
    assert status == 75 and "Traceback" not in error, error
    step = logged(folder)[-1]["step"]
    assert (folder / "checkpoints" / "latest").read_text() == f"step_{step:06d}\n"
    done = f"SIGTERM, gone after {grace:.1f} s with status 75,"
    goes_on(folder, given, undisturbed, "SIGTERM and requeue", done)
    assert resumed_from(folder)[-1] == step


def test_the_same_run_started_twice(words, undisturbed, output):
    given, folder = words("twice"), output / "twice"
    with training(folder, given) as first:
        first.wait_for_step(3)
        with training(folder, given) as second:
            status, error = second.end()
        assert status == 2 and "another process trains this run" in error and "Traceback" not in error, error
        assert first.end()[0] == 0
    assert_same(folder, undisturbed)
    record(
        "same run started twice", "the same command while it runs", "nothing; the second ends, status 2", None
    )
