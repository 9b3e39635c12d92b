"""`spml-dist pack` over many images: killed and started again, by several workers, with broken images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from spml_dist.cli import main
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.format.verify import verify
from tests.data.conftest import image
from tests.data.pack.test_pack import digests

SCENES = ["--images", "60", "--val", "1", "--size", "96", "--seed", "3", "--shard-size", "4"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert main(["pack", "sample", "--out", str(out), *SCENES]) == 0
    return out


def in_the_middle(aside: Path) -> bool:
    """Whether two tars are finished and another is in the making."""
    return len(list(aside.glob("*.json"))) >= 2 and any(half.stat().st_size for half in aside.glob("*.half"))


def heeding_interrupts() -> None:
    """Undo what a shell does to whatever it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("workers", "end"), [("1", signal.SIGKILL), ("2", signal.SIGKILL), ("2", signal.SIGINT)]
)
def test_what_is_ended_in_the_middle_of_a_tar_leaves_no_process_and_goes_on(
    workers, end, whole, tmp_path, capsys
):
    words = ["pack", "sample", "--out", str(tmp_path), *SCENES]
    train = tmp_path / "train"
    command = [sys.executable, "-m", "spml_dist", *words, "--workers", workers]
    packing = psutil.Popen(
        command, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heeding_interrupts
    )
    while not in_the_middle(train / ".packing"):
        assert packing.poll() is None, "it was over too soon"
        time.sleep(0.002)
    started = packing.children()
    if end == signal.SIGINT:
        os.killpg(packing.pid, end)  # as a terminal does
        last = packing.communicate(timeout=120)[1].decode().splitlines()[-1]
        assert last == "spml-dist: interrupted; the same command goes on"
        assert packing.returncode == 130
    else:
        packing.send_signal(end)
        packing.communicate(timeout=120)
    assert psutil.wait_procs(started, timeout=60)[1] == []
    assert [path.name for path in train.iterdir()] == [".packing"]

    assert main(words) == 0
    assert "of 15 tars are there already" in capsys.readouterr().err
    assert digests(train) == digests(whole / "train")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four images."""
    root = tmp_path / "photos"
    root.mkdir()
    for seed, image_id in enumerate("abcd"):
        Image.fromarray(image(seed)).save(root / f"{image_id}.jpg")
    return root


class TestBrokenImages:
    @pytest.fixture
    def words(self, photos: Path, tmp_path: Path) -> list[str]:
        (photos / "b.jpg").write_bytes(b"")
        return ["pack", "images", str(photos), "--shard-size", "1", "--out", str(tmp_path / "out")]

    def test_they_are_listed_and_the_rest_is_packed(self, words, tmp_path, capsys):
        assert main([*words, "--json", str(tmp_path / "table.json")]) == 0
        out, message = tmp_path / "out", capsys.readouterr()
        assert f"1 of 4 images rejected; {out}/rejected.jsonl says why" in message.err
        assert "1, listed in rejected.jsonl" in message.out
        (line,) = (out / "rejected.jsonl").read_text().splitlines()
        rejected = json.loads(line)
        assert rejected["image"] == "b" and "b.jpg: cannot be decoded (got zero bytes)" in rejected["reason"]
        assert read_manifest(out).samples == 3 and verify(out)["problems"] == []
        table = json.loads((tmp_path / "table.json").read_text())["all"]
        assert (table["images"], table["rejected"], table["regions"]) == (3, 1, "felzenszwalb")
        assert table["pixels_contradicted"] == 0 and "kinds" in table

    def test_with_strict_the_first_one_stops_it(self, words, tmp_path, capsys):
        assert main([*words, "--strict"]) == 2
        assert "b.jpg: cannot be decoded" in capsys.readouterr().err.splitlines()[-1]
        assert not (tmp_path / "out").exists()

    def test_a_folder_that_was_there_before_stays(self, words, tmp_path):
        (tmp_path / "out").mkdir()
        assert main([*words, "--strict"]) == 2
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("recipe", [["sample"], ["images", "photos"]])
def test_a_file_is_no_place_for_a_pack(recipe, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").write_text("mine")
    assert main(["pack", *recipe, "--out", "afile"]) == 2
    message = "spml-dist: error: afile: cannot be written (got a file); give a folder as --out\n"
    assert capsys.readouterr().err == message
    assert (tmp_path / "afile").read_text() == "mine"


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_fewer_workers_than_one_are_refused(workers, tmp_path, capsys):
    assert main(["pack", "sample", "--out", str(tmp_path / "out"), "--workers", workers]) == 2
    assert "give a whole number of at least 1" in capsys.readouterr().err


def test_the_manifest_says_how_regions_were_made_ready_ones_by_the_name_of_their_folder(photos, tmp_path):
    ready = tmp_path / "ready"
    ready.mkdir()
    for path in photos.iterdir():
        Image.fromarray(image(0)[..., 0]).save(ready / f"{path.stem}.png")
    for how, message in (("ucm:30", "ucm:30"), (str(ready), "folder ready")):
        assert main(["pack", "images", str(photos), "--regions", how, "--out", str(tmp_path / "out")]) == 0
        assert read_manifest(tmp_path / "out").regions == message
