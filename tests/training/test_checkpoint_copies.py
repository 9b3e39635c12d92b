"""Checkpoints that are kept in an S3-compatible store: a run goes on from them where its folder is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from spml_dist.config import load
from spml_dist.config.classifier import classifier_experiment
from spml_dist.errors import ConfigError, RunError
from spml_dist.files import address
from spml_dist.run_folder import RunFolder
from spml_dist.training import checkpoint_copies, doctor, loop
from spml_dist.training.checkpoint_copies import LISTING, CheckpointCopies
from tests import servers
from tests.conftest import SMALL, payload, work

s3fs = pytest.importorskip("s3fs")

BRIEFLY = ("stream.crop=32", "schedule.steps=8", "checkpoint.every=2", "tracking.previews=0")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch) -> Iterator[str]:
    with servers.s3("runs", tmp_path / "nothing") as (bucket, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield f"{bucket}/{tmp_path.name}"  # what another test has stored is still there


def run_folder(root: Path, *steps: int) -> RunFolder:
    """A run with checkpoints that hold their own names."""
    for step in steps:
        path = root / "mine" / "checkpoints" / f"step_{step:06d}"
        (path / "engine").mkdir(parents=True)
        (path / "stream.json").write_text(json.dumps({"step": step}))
        (path / "engine" / "weights").write_text(path.name)
    return RunFolder(root / "mine")


def listing(place: str) -> dict[str, list[str]]:
    return json.loads(address.read(f"{place}/mine/{LISTING}", 5))


class TestCopies:
    def test_the_newest_stay_and_others_go(self, bucket: str, tmp_path: Path):
        run, said = run_folder(tmp_path, 2, 4, 6), []
        copies = CheckpointCopies(f"{bucket}/here/", run, 2, said.append)
        for step in (2, 4, 6):
            copies._copy(run.checkpoints / f"step_{step:06d}")
        copies.close()
        place = f"{bucket}/here"
        assert list(listing(place)) == ["step_000004", "step_000006"] and not said
        assert address.sizes(f"{place}/mine/step_000006/engine") == {"weights": len("step_000006")}
        assert not address.sizes(f"{place}/mine/step_000002/engine")

    def test_after_a_return_to_an_older_one_later_ones_go(self, bucket: str, tmp_path: Path):
        run = run_folder(tmp_path, 2, 4, 6)
        copies = CheckpointCopies(bucket, run, 3, lambda line: None)
        for step in (2, 6, 4):
            copies._copy(run.checkpoints / f"step_{step:06d}")
        assert list(listing(bucket)) == ["step_000002", "step_000004"]

    def test_one_that_comes_meanwhile_is_left_out_but_for_the_last(self, bucket: str, tmp_path: Path):
        run = run_folder(tmp_path, *range(2, 12, 2))
        copies = CheckpointCopies(bucket, run, 9, lambda line: None)
        for step in range(2, 12, 2):
            copies.offer(run.checkpoints / f"step_{step:06d}")
        copies.close()
        assert {"step_000002", "step_000010"} <= listing(bucket).keys()

    def test_a_store_that_fails_is_a_line_and_the_next_one_succeeds(
        self, bucket: str, tmp_path: Path, monkeypatch
    ):
        def away(path: Path, target: str) -> None:
            raise RunError(f"{target}: cannot be written", "away", "check it")

        run, said = run_folder(tmp_path, 2, 4), []
        copies = CheckpointCopies(bucket, run, 2, said.append)
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_copies.address, "store", away)
            copies._copy(run.checkpoints / "step_000002")
        assert len(said) == 1 and said[0].startswith("step_000002 is not copied: ")
        copies.offer(run.checkpoints / "step_000004")
        copies.close()
        assert list(listing(bucket)) == ["step_000004"]


class TestFetch:
    def test_the_newest_with_all_its_files(self, bucket: str, tmp_path: Path):
        run = run_folder(tmp_path, 2, 4)
        (run.path / "metrics.jsonl").write_text('{"step": 1}\n')
        copies = CheckpointCopies(bucket, run, 2, print)
        for step in (2, 4):
            copies._copy(run.checkpoints / f"step_{step:06d}")
        other = RunFolder(tmp_path / "elsewhere" / "mine")
        assert checkpoint_copies.fetch(bucket, other) == "step_000004"
        assert (other.checkpoints / "step_000004/engine/weights").read_text() == "step_000004"
        assert other.metrics.read_text() == '{"step": 1}\n'
        assert checkpoint_copies.fetch(bucket, other) is None, "it has one of its own now"

    def test_a_full_disk_is_an_error_that_all_ranks_can_hear(self, bucket: str, tmp_path: Path, monkeypatch):
        def full(*_) -> None:
            raise OSError(28, "No space left on device")

        run = run_folder(tmp_path, 2)
        CheckpointCopies(bucket, run, 2, print)._copy(run.checkpoints / "step_000002")
        monkeypatch.setattr(checkpoint_copies.os, "replace", full)
        other = RunFolder(tmp_path / "elsewhere" / "mine")
        with pytest.raises(RunError, match="cannot be written"):
            checkpoint_copies.fetch(bucket, other)
        monkeypatch.undo()
        assert not (other.checkpoints / "latest").exists()

    def test_none_is_there(self, bucket: str, tmp_path: Path):
        assert checkpoint_copies.fetch(bucket, RunFolder(tmp_path / "mine")) is None

    @pytest.mark.parametrize("name", ["../out", "/etc/out", ""])
    def test_a_listing_that_leads_elsewhere_is_refused(self, bucket: str, tmp_path: Path, name: str):
        run = run_folder(tmp_path, 2)
        CheckpointCopies(bucket, run, 2, print)._store(LISTING, json.dumps({"step_000002": [name]}).encode())
        with pytest.raises(RunError, match="lists no checkpoints"):
            checkpoint_copies.fetch(bucket, RunFolder(tmp_path / "other" / "mine"))


def test_a_run_goes_on_where_its_folder_is_not(experiment, bucket: str, tmp_path: Path, monkeypatch):
    remote = f"checkpoint.remote={bucket}/far"

    def start(place: str, *words: str, stop_before: int | None = None) -> dict:
        (tmp_path / place).mkdir(exist_ok=True)
        words = experiment(tmp_path / place, "mine", *BRIEFLY, *words)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "make_step", loop.make_step)  # `work` puts its own in this place
            (outcome,) = work(0, [payload(words, stop_before)])
        return outcome

    assert start("here", remote, stop_before=5)["steps"] == [0, 1, 2, 3, 4]
    assert start("there", remote) == {"steps": [4, 5, 6, 7], "error": None}
    assert start("straight")["error"] is None
    there, straight = (tmp_path / place / "mine" for place in ("there", "straight"))
    assert (there / "export/model.safetensors").read_bytes() == (
        straight / "export/model.safetensors"
    ).read_bytes()
    steps = [json.loads(line)["step"] for line in (there / "metrics.jsonl").read_text().splitlines()]
    assert steps == [*range(1, 9)]
    assert f"resuming from step_000004, of {bucket}/far" in (there / "train.log").read_text()


def test_doctor_stores_a_file_there_and_removes_it(bucket: str, monkeypatch):
    assert doctor._remote(bucket).remedy == "" and not address.sizes(bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", servers.dead_url())
    monkeypatch.setattr(address, "RETRY_SECONDS", 0.2)
    s3fs.S3FileSystem.clear_instance_cache()  # they remember the server that answered
    with pytest.raises(RunError, match="cannot be written"):
        doctor._remote(f"{bucket}/elsewhere")


@pytest.mark.parametrize("place", ["runs", "https://host/runs", "pipe:cat"])
def test_a_place_that_takes_no_copies(place: str):
    with pytest.raises(ConfigError, match=r"checkpoint\.remote"):
        load(SMALL, ["name=mine", "data.train=x", f"checkpoint.remote={place}"])


def test_a_stage_has_its_own_place(tmp_path: Path):
    config = load(SMALL, ["name=mine", "data.train=x", "checkpoint.remote=s3://bucket/runs"])
    stage = classifier_experiment(config, tmp_path / "mine/stages/s1", tmp_path, config.model)
    assert stage.checkpoint.remote == "s3://bucket/runs/mine/stages"
