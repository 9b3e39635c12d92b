"""A pack labelled as a user types it: all stages, gone on with after a kill, the same bytes every time."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spml_dist import cli
from spml_dist.cluster import local_processes
from spml_dist.config import dump, load
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.format.verify import verify
from spml_dist.data.pack.pack import pack
from spml_dist.data.stream.reader import samples
from spml_dist.labeling import label_quality
from spml_dist.labeling import network as networks
from spml_dist.labeling.walks import SoftmaxWalk
from spml_dist.model import export
from spml_dist.model.segmenter import build
from spml_dist.records import UNLABELLED
from tests.inference.conftest import CLASSES, ColourNet, stripes

CONFIG = Path(__file__).parents[1] / "small.yaml"
QUICK = ("labeling.stride=4", "labeling.scales=[1]", "labeling.index_scales=[1]", "labeling.neighbours=3")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a finished run; what its network sees is replaced by colours."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    words = ["name=toy", "data.train=nowhere", "evaluation.grid=[4, 6]", "engine.device=cpu"]
    config = load(CONFIG, words)
    model = build(config.model, len(CLASSES), seed=0)
    export.save(model.state_dict(), folder / "export", config.model, list(CLASSES), None, 40)
    (folder / "config.yaml").write_text(dump(config))
    return folder


@pytest.fixture(autouse=True)
def colours(monkeypatch) -> None:
    monkeypatch.setattr(networks, "_segmenter", lambda *_: ColourNet().eval())


def mixed(number: int):
    """A band, tags alone, or nothing, in turn."""
    one = stripes(number)
    blank = np.full_like(one.semantic, UNLABELLED)
    match number % 3:
        case 0:
            return replace(one, kinds=("scribbles", "tags"))
        case 1:
            return replace(one, semantic=blank, kinds=("tags",))
    return replace(one, semantic=blank, tags=None)


@pytest.fixture
def weak(tmp_path) -> Path:
    described = {"split": "train", "labels": "scribbles,tags", "classes": CLASSES, "shard_size": 2}
    pack(map(mixed, range(6)), tmp_path / "weak", "weak", **described)
    return tmp_path / "weak"


def label(*words: object) -> int:
    return cli.main(["label", *map(str, words), *QUICK])


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}


def message(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1, lines
    return lines[0]


def test_images_are_labelled_by_what_is_known_of_them(run, weak, tmp_path, capsys):
    assert label(run, weak, "--out", tmp_path / "out") == 0
    after = list(samples(tmp_path / "out"))
    assert [one.kinds for one in after] == [("scribbles", "tags", "walk"), ("tags", "neighbours"), ()] * 2
    for old, new in zip(samples(weak), after, strict=True):
        kept = old.semantic != UNLABELLED
        np.testing.assert_array_equal(new.semantic[kept], old.semantic[kept])
        assert not new.kinds or (new.semantic == new.mask).mean() > 0.9
    printed = capsys.readouterr().out
    assert "walk: 2 of 6 images of train got labels, 2 of them have ground truth" in printed
    assert "2 images have neither tags nor labels of a class and stay as they are: stripes-2" in printed
    assert f"train with: spml-dist train CONFIG data.train={tmp_path / 'out'}" in printed


def test_the_pack_is_sound_and_says_what_made_it(run, weak, tmp_path):
    assert label(run, weak, "--out", tmp_path / "out", "--by", "walk") == 0
    manifest = read_manifest(tmp_path / "out")
    assert (manifest.name, manifest.labels, manifest.version) == ("weak-walk", "scribbles,tags,walk", 3)
    assert verify(tmp_path / "out")["problems"] == []
    note = json.loads((tmp_path / "out" / "labeling.json").read_text())
    assert (note["run"], note["step"], note["by"], note["split"]) == ("toy", 40, "walk", "train")
    assert (note["images"], note["images_labelled"], note["images_measured"]) == (6, 4, 4)
    assert note["all"]["iou"] > 0.9 and note["labeling"]["steps"] == 64
    assert note["evaluation"]["grid"] and (note["cam"], note["index"]) == (None, None)
    assert not (run / "segments").exists()


def test_any_number_of_workers_writes_the_same_bytes(run, weak, tmp_path, monkeypatch):
    """Workers are stood in for by a spread that pickles what travels and finishes last things first."""

    def spread(function, items, workers):
        travelled = pickle.loads(pickle.dumps(function))
        yield from (pickle.loads(pickle.dumps(travelled(item))) for item in reversed(list(items)))

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(local_processes, "spread", spread)
    assert label(run, weak, "--out", tmp_path / "one") == 0
    assert label(run, weak, "--out", tmp_path / "three", "--workers", 3) == 0
    assert tars(tmp_path / "one") == tars(tmp_path / "three")
    manifests = [(tmp_path / out / "manifest.json").read_bytes() for out in ("one", "three")]
    assert manifests[0] == manifests[1]


def test_after_a_kill_it_goes_on_and_writes_the_same_bytes(run, weak, tmp_path, monkeypatch, capsys):
    assert label(run, weak, "--out", tmp_path / "whole", "--by", "walk") == 0
    seen = []

    def killed(self, sample, plain=SoftmaxWalk.__call__):
        seen.append(sample.key)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return plain(self, sample)

    with monkeypatch.context() as patched:
        patched.setattr(SoftmaxWalk, "__call__", killed)
        assert label(run, weak, "--out", tmp_path / "out", "--by", "walk") == 130
        assert label(run, weak, "--out", tmp_path / "out", "--by", "walk") == 0
    assert seen == [f"stripes-{n}" for n in (0, 1, 2, 3, 2, 3, 4, 5)]
    assert tars(tmp_path / "out") == tars(tmp_path / "whole")
    assert "1 of 3 tars are there already" in capsys.readouterr().err


def test_what_is_done_is_not_done_again(run, weak, tmp_path, monkeypatch, capsys):
    given = (run, weak, "--out", tmp_path / "out")
    assert label(*given) == 0
    first = capsys.readouterr().out
    monkeypatch.setattr(label_quality, "measure", lambda *_, **__: pytest.fail("measured again"))
    assert label(*given) == 0
    assert capsys.readouterr().out == first


def test_a_broken_image_is_named_and_the_others_go_on(run, weak, tmp_path, capsys):
    tar = weak / read_manifest(weak).shards[0].url
    tar.write_bytes(tar.read_bytes().replace(b"\xff\xd8\xff", b"\0\0\0", 1))
    assert label(run, weak, "--out", tmp_path / "out", "--by", "neighbours") == 3
    assert "images that could not be read: 1, named in" in capsys.readouterr().err
    assert [one.key for one in samples(tmp_path / "out")] == [f"stripes-{n}" for n in range(1, 6)]
    rejected = json.loads((tmp_path / "out" / "rejected.jsonl").read_text())
    assert rejected["image"] == "stripes-0" and "cannot be decoded" in rejected["reason"]


def test_a_class_that_no_segment_has_is_told(run, tmp_path, capsys):
    one = mixed(0)
    one.semantic[one.semantic == 2] = UNLABELLED
    described = {"split": "train", "labels": "scribbles,tags", "classes": CLASSES}
    pack(iter([one, mixed(1)]), tmp_path / "weak", "weak", **described)
    assert label(run, tmp_path / "weak", "--out", tmp_path / "out", "--by", "neighbours") == 0
    assert (
        "no labelled segment of blue, which tags of 2 images promise: none gets it" in capsys.readouterr().out
    )


def test_segments_of_another_pack_can_be_asked(run, weak, tmp_path):
    described = {"split": "more", "labels": "tags", "classes": CLASSES}
    pack(iter([mixed(1), mixed(4)]), tmp_path / "more", "more", **described)
    given = (run, tmp_path / "more", "--out", tmp_path / "out", "--by", "neighbours")
    assert label(*given) == 2
    assert label(*given, "--index", weak) == 0
    assert json.loads((tmp_path / "out" / "labeling.json").read_text())["all"]["iou"] > 0.9


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--by", "magic"], "--by (got magic); use auto"),
        (["--by", "cam"], "--cam"),
        (["stream.batch=3"], "the run is trained: only labeling.*, evaluation.* and engine.device"),
        (["--by", "walk", "--index", "elsewhere"], "--index without neighbours (got elsewhere)"),
        (["labeling.step=3"], "did you mean labeling.steps?"),
        (["cam.foreground=0.4"], "cam.foreground cannot change"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(run, weak, tmp_path, capsys, words, names):
    assert label(run, weak, "--out", tmp_path / "out", *words) == 2
    assert names in message(capsys)
    assert not (tmp_path / "out").exists()


def test_places_and_classes_that_do_not_fit_are_named(run, weak, tmp_path, packed, capsys):
    for out, names in ((weak, "the pack that is read"), (weak / "in", "lies in the pack that is read")):
        assert label(run, weak, "--out", out) == 2
        assert names in message(capsys)
    assert label(tmp_path / "absent", weak, "--out", tmp_path / "out") == 2
    assert "absent: no such run folder; give the folder that `spml-dist train` wrote" in message(capsys)
    other = packed("other", [stripes(0)], classes=("red", "green", "pink"))
    assert label(run, other, "--out", tmp_path / "out") == 2
    assert "classes are not those that" in message(capsys)


def test_the_pack_that_is_asked_is_not_replaced(run, weak, tmp_path, capsys):
    asked = tmp_path / "asked"
    assert label(run, weak, "--out", asked, "--by", "walk") == 0
    before = {path: path.read_bytes() for path in asked.iterdir()}
    assert label(run, weak, "--out", asked, "--by", "neighbours", "--index", asked) == 2
    assert "asked: the pack that is read" in message(capsys)
    assert before == {path: path.read_bytes() for path in asked.iterdir()}


def test_a_pack_that_people_labelled_is_not_replaced(run, weak, tmp_path, packed, capsys):
    mine = packed("mine", [stripes(4)])
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    assert cli.main(["label", str(run), str(weak), "--out", str(mine), *QUICK]) == 2
    assert "holds a pack that no labeler made" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before
    for steps in (0, 1):  # its own are made again
        words = ["--by", "walk", f"labeling.steps={steps}", *QUICK]
        assert cli.main(["label", str(run), str(weak), "--out", str(tmp_path / "out"), *words]) == 0
