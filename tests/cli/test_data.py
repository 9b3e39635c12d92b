"""What `spml-dist train` sees of its data before it starts anything: one line, status 2, no run folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from spml_dist.cli import main
from spml_dist.files import address
from tests import servers


@pytest.fixture
def data(sample: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sample, tmp_path / "data")


@pytest.fixture
def refused(experiment, data: Path, tmp_path: Path, capsys, monkeypatch):
    """refused(*overrides): what the command says."""
    monkeypatch.setattr(address, "RETRY_SECONDS", 0.3)

    def run(*overrides: str) -> str:
        places = [f"data.train={data}/train", f"data.val={data}/val"]
        assert main(["train", *experiment(tmp_path, "tiny", *places, *overrides)]) == 2
        (line,) = capsys.readouterr().err.splitlines()[-1:]
        assert not (tmp_path / "tiny").exists()
        return line.removeprefix("spml-dist: error: ")

    return run


def rewrite(folder: Path, **changes) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_more_workers_than_samples(refused):
    message = refused("engine.workers=13", "stream.batch=16")
    assert (
        message.startswith("engine.workers (got 13)")
        and "data/train, holds no more than 12 samples" in message
    )


@pytest.mark.parametrize("split", ["val", "test"])
def test_splits_of_other_classes(refused, data, split):
    classes = json.loads((data / "val" / "manifest.json").read_text())["classes"]
    rewrite(data / "val", classes=["earth", *classes[1:]])
    places = ["data.val=" + str(data / "train"), f"data.{split}={data}/val"]
    message = refused(*places)
    assert message.startswith(
        f"{data}/val/manifest.json: classes are not those of {data}/train/manifest.json"
    )
    assert f"0 is earth, there {classes[0]}" in message


def test_a_tar_that_is_cut(refused, data):
    (tar,) = (data / "val").glob("*.tar")
    tar.write_bytes(tar.read_bytes()[:-512])
    message = refused()
    assert message.startswith(f"{tar}: not the ") and "copy the file again" in message


def test_a_manifest_that_counts_wrongly(refused, data):
    rewrite(data / "train", samples=99)
    assert refused().startswith(f"{data}/train/manifest.json: not the 99 samples")


def test_a_server_where_nobody_answers(refused):
    url = servers.dead_url()
    message = refused(f"data.train={url}/train")
    assert message.startswith(f"{url}/train/manifest.json: cannot be read in ")


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_address_that_would_run_a_program(refused, split):
    message = refused(f"data.{split}=pipe:cat train")
    key = "" if split == "train" else "data.val: "
    assert message.startswith(
        f"{key}pipe:cat train/manifest.json: this kind of address is not read (got pipe:)"
    )


def test_a_shard_that_would_run_a_program(refused, data):
    shards = json.loads((data / "train" / "manifest.json").read_text())["shards"]
    shards[1]["url"] = "pipe:cat a.tar"
    rewrite(data / "train", shards=shards)
    message = refused()
    assert (
        message.startswith(f"{data}/train/manifest.json: shard pipe:cat a.tar: ") and "got pipe:" in message
    )
