"""What a training needs goes wrong and comes back: it ends with a line, and the same command ends in the run
that nobody disturbed. One process, whose surroundings are changed between two steps.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from spml_dist.training import checkpoint_writer, loop
from tests.conftest import payload, work
from tests.drills.same_run import assert_same, logged
from tests.training.test_checkpoint import BRIEFLY, no_space

pytestmark = pytest.mark.timeout(900)

STEP = 5
"""from 0: two checkpoints are behind it"""
CHANGES = [*BRIEFLY, "schedule.steps=8"]


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def data(sample: Path, tmp_path_factory) -> Path:
    """Scenes that may be damaged."""
    return Path(shutil.copytree(sample, tmp_path_factory.mktemp("data") / "sample"))


@pytest.fixture(autouse=True)
def alone(monkeypatch) -> None:
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")  # `work` sets them too; so they are gone afterwards


@pytest.fixture(scope="module")
def train(experiment, output: Path, data: Path) -> Callable[..., dict]:
    """train(name, disturb): what became of it; disturb(step) is called before each step."""

    def run(name: str, disturb: Callable[[int], None] = lambda step: None) -> dict:
        make_step = loop.make_step
        where = [f"data.train={data}/train", f"data.val={data}/val"]

        def disturbed(run, step, *rest):
            disturb(step)
            return make_step(run, step, *rest)

        loop.make_step = disturbed
        try:
            return work(0, [payload(experiment(output, name, *CHANGES, *where))])[0]
        finally:
            loop.make_step = make_step

    return run


@pytest.fixture(scope="module")
def undisturbed(train, output: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "0")
        patch.setenv("LOCAL_RANK", "0")
        assert train("undisturbed")["error"] is None
    return output / "undisturbed"


def at(step: int, act: Callable[[], None]) -> Callable[[int], None]:
    return lambda now: act() if now == step else None


def shards(data: Path) -> list[Path]:
    return sorted((data / "train").glob("*.tar"))


def corrupt(tar: Path) -> None:
    tar.write_bytes(bytes(len(tar.read_bytes())))


def replace(tar: Path) -> None:
    """By a whole tar that is another one."""
    shutil.copyfile(next(other for other in shards(tar.parents[1]) if other != tar), tar)


@pytest.mark.parametrize("damage", [corrupt, replace])
def test_a_shard_is_damaged_and_put_back(train, undisturbed, output, data, tmp_path, damage):
    kept = shutil.copytree(data / "train", tmp_path / "kept")
    name = f"shard_{damage.__name__}"

    def lose() -> None:
        for tar in shards(data):
            damage(tar)

    first = train(name, at(STEP, lose))
    shutil.copytree(kept, data / "train", dirs_exist_ok=True)
    assert first["error"] and first["error"].startswith("DataError: ") and ".tar" in first["error"], first
    assert train(name)["error"] is None
    assert_same(output / name, undisturbed)


def test_a_shard_that_is_open_may_be_deleted(train, undisturbed, output, data, tmp_path):
    kept = shutil.copytree(data / "train", tmp_path / "kept")

    def lose() -> None:
        for tar in shards(data):
            tar.unlink()

    assert train("shard_deleted", at(STEP, lose))["error"] is None
    shutil.copytree(kept, data / "train", dirs_exist_ok=True)
    assert_same(output / "shard_deleted", undisturbed)


def test_a_number_is_not_finite(train, undisturbed, output, monkeypatch):
    """It ends at once and changes nothing; here what made it so is gone when the training goes on."""
    moved = loop.moved

    def poison() -> None:
        monkeypatch.setattr(loop, "moved", lambda batch, device: spoilt(moved(batch, device)))

    first = train("nan", at(STEP, poison))
    monkeypatch.setattr(loop, "moved", moved)
    assert first["error"].startswith("RunError: ") and "not finite" in first["error"], first
    again = train("nan")
    assert (again["steps"], again["error"]) == ([4, 5, 6, 7], None)
    assert_same(output / "nan", undisturbed)


def spoilt(batch):
    batch.image[0, 0, 0, 0] = torch.nan
    return batch


def test_the_disk_is_full_and_has_room_again(train, undisturbed, output, monkeypatch):
    write = checkpoint_writer.save_file
    fill = partial(monkeypatch.setattr, checkpoint_writer, "save_file", no_space)
    first = train("full", at(STEP, fill))
    monkeypatch.setattr(checkpoint_writer, "save_file", write)
    assert "step_000006 cannot be written" in first["error"] and "No space left" in first["error"]
    again = train("full")
    assert (again["steps"], again["error"]) == ([4, 5, 6, 7], None)
    assert_same(output / "full", undisturbed)


def test_the_disk_is_slow(train, undisturbed, output, monkeypatch):
    """A checkpoint takes longer than the steps between two of them: nothing is lost, and all are whole."""
    write = checkpoint_writer.save_file

    def slowly(*given) -> None:
        time.sleep(0.3)
        write(*given)

    monkeypatch.setattr(checkpoint_writer, "save_file", slowly)
    assert train("slow")["error"] is None
    assert_same(output / "slow", undisturbed)


def test_it_goes_on_where_the_clock_is_an_hour_behind(train, undisturbed, output, monkeypatch):
    clock = time.time

    def fail() -> None:
        raise InterruptedError

    assert "Interrupted" in train("clock", at(STEP, fail))["error"]
    monkeypatch.setattr(time, "time", lambda: clock() - 3600)
    assert train("clock")["error"] is None
    assert_same(output / "clock", undisturbed)
    stamps = [entry["timestamp"] for entry in logged(output / "clock")]
    assert stamps != sorted(stamps), "the second half is an hour before the first"
