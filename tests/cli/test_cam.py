"""From tags to seeds as a user types it, and what can go wrong on the way."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spml_dist import cli
from spml_dist.config import dump, load
from spml_dist.data.format.manifest import Manifest, read_manifest
from spml_dist.data.pack.pack import pack
from spml_dist.data.stream.reader import Reader, samples
from spml_dist.errors import RunError
from spml_dist.files import address
from spml_dist.labeling import label_quality
from spml_dist.records import IGNORED, UNLABELLED, Sample
from tests import servers

pytestmark = pytest.mark.timeout(600)

BOXES = ((1, 8.0, 8.0, 40.0, 40.0), (2, 30.0, 30.0, 60.0, 60.0))


def variant(number: int, sample: Sample) -> Sample:
    """Tags alone; but for an image with boxes, one of which nothing is known, and one with a line."""
    blank = np.full_like(sample.semantic, UNLABELLED)
    match number:
        case 0:
            return replace(sample, semantic=blank, boxes=BOXES, kinds=("boxes",))
        case 1:
            return replace(sample, semantic=blank, tags=None, kinds=())
        case 2:
            return replace(sample, kinds=("scribbles", "tags"))
    return replace(sample, semantic=blank, kinds=("tags",))


def repack(folder: Path, out: Path, made, **changes) -> Path:
    manifest: Manifest = read_manifest(folder)
    described = {"split": "train", "labels": "tags", "classes": manifest.classes}
    described |= {"background": manifest.background, "shard_size": 5} | changes
    pack((made(n, sample) for n, sample in enumerate(samples(folder))), out, "weak", **described)
    return out


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cam")


@pytest.fixture(scope="module")
def tagged(sample: Path, root: Path) -> Path:
    return repack(sample / "train", root / "tags", variant)


@pytest.fixture(scope="module")
def words(experiment, root: Path, tagged: Path) -> list[str]:
    unpacked = f"data.val={root / 'nowhere'}"  # nothing is evaluated
    return experiment(root, "tiny", f"data.train={tagged}", unpacked, "cam.steps=6", "cam.scales=[0.5, 1]")


@pytest.fixture(scope="module")
def run(words, root: Path) -> Path:
    threads = torch.get_num_threads()
    assert cli.main(["cam", "train", *words, "--alone"]) == 0
    torch.set_num_threads(threads)
    return root / "tiny_cam"


def infer(*given: object) -> int:
    return cli.main(["cam", "infer", *map(str, given)])


@pytest.fixture(scope="module")
def seeds(run, tagged, root: Path) -> Path:
    assert infer(run, tagged, "--out", root / "seeds") == 0
    return root / "seeds"


def message(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1, lines
    return lines[0]


def test_the_run_folder_is_named_after_the_experiment_and_says_what_comes_next(run, words, capsys):
    assert json.loads((run / "export" / "model.json").read_text())["network"] == "cam"
    assert cli.main(["cam", "train", *words, "--alone"]) == 0
    assert "already trained to step 6" in capsys.readouterr().out


def test_what_the_run_says_of_its_labels_does_not_ask_for_cam(run):
    hints = json.loads((run / "labels.json").read_text())["hints"]
    assert not [hint for hint in hints if "CAM" in hint or "teach" in hint]


def test_only_labels_and_kinds_of_those_that_got_seeds_change(seeds, tagged):
    before, after = list(samples(tagged)), list(samples(seeds))
    assert [one.key for one in before] == [one.key for one in after]
    got = []
    for old, new in zip(before, after, strict=True):
        for name in ("image", "regions", "mask"):
            np.testing.assert_array_equal(getattr(old, name), getattr(new, name))
        assert (old.tags, old.boxes) == (new.tags, new.boxes)
        annotated = old.semantic != UNLABELLED
        np.testing.assert_array_equal(new.semantic[annotated], old.semantic[annotated])
        changed = (new.semantic != old.semantic).any()
        assert new.kinds == (*old.kinds, *(["cam"] if changed else []))
        allowed = {*(old.tags or ()), *(b[0] for b in old.boxes or ()), 0, UNLABELLED, IGNORED}
        assert not changed or set(np.unique(new.semantic)) <= allowed
        got.append(changed)
    assert got[0] and not got[1] and not got[2] and any(got[3:])


def test_outside_all_boxes_lies_background(seeds):
    first = next(samples(seeds)).semantic
    assert (first[:8] == 0).all() and (first[40:, :30] == 0).all()
    assert set(np.unique(first[8:30, 8:30])) <= {1, UNLABELLED} and (first[8:40, 8:40] == 1).any()


def test_a_tar_becomes_a_tar_with_the_same_jpegs(seeds, tagged):
    ours, theirs = read_manifest(seeds), read_manifest(tagged)
    assert [s.samples for s in ours.shards] == [s.samples for s in theirs.shards] == [5, 5, 2]
    assert ours.labels == "tags,cam" and ours.name == "weak-cam"
    readers = Reader(seeds, ours), Reader(tagged, theirs)
    new, old = (reader.read_encoded(2, 1)[1] for reader in readers)
    assert new == old


def test_the_numbers_are_those_of_the_pack(seeds):
    result = json.loads((seeds / "seeds.json").read_text())
    after = [one for one in samples(seeds) if "cam" in one.kinds]
    assert (result["images"], result["images_labelled"]) == (12, len(after))
    labels, mask = (np.stack([getattr(one, name) for one in after]) for name in ("semantic", "mask"))
    names = read_manifest(seeds).classes
    for label in np.unique(labels[labels < len(names)]):
        there = labels == label
        assert result["classes"][names[label]]["labelled"] == pytest.approx(there.mean())
        assert result["classes"][names[label]]["precision"] == pytest.approx((mask[there] == label).mean())
    assert result["cam"]["scales"] == [0.5, 1.0]


def test_two_processes_write_the_same_bytes(seeds, run, tagged, tmp_path):
    assert infer(run, tagged, "--out", tmp_path / "again", "--workers", 2) == 0
    for shard in read_manifest(seeds).shards:
        assert (tmp_path / "again" / shard.url).read_bytes() == (seeds / shard.url).read_bytes()


def test_thresholds_may_change_after_training(seeds, run, tagged, tmp_path):
    changes = ("cam.foreground=1", "cam.background=1")
    assert infer(run, tagged, "--out", tmp_path / "strict", *changes) == 0
    loose, strict = (sum(read_manifest(f).counts.pixels_labelled) for f in (seeds, tmp_path / "strict"))
    assert strict < loose


def test_the_seeds_can_be_trained_with(seeds, experiment, tmp_path):
    threads = torch.get_num_threads()
    words = experiment(tmp_path, "after", f"data.train={seeds}", "schedule.steps=3", "tracking.previews=0")
    assert cli.main(["train", *words, "--alone"]) == 0
    torch.set_num_threads(threads)


def test_a_run_of_the_other_kind_is_one_line(run, seeds, tagged, tmp_path, capsys):
    assert cli.main(["evaluate", str(run)]) == 2
    assert (
        "network that is needed here, segmenter (got cam); give the folder of a run of `spml-dist train`"
        in (message(capsys))
    )
    other = shutil.copytree(run, tmp_path / "other")
    (other / "config.yaml").write_text(dump(load(run / "config.yaml", ["stream.mirror_swaps=[[1,2]]"])))
    info = json.loads((other / "export" / "model.json").read_text()) | {"network": "segmenter"}
    (other / "export" / "model.json").write_text(json.dumps(info))
    assert infer(other, tagged, "--out", tmp_path / "out") == 2
    assert "cam (got segmenter); give the folder of a run of `spml-dist cam train`" in message(capsys)
    assert not (tmp_path / "out").exists()


def test_other_classes_are_refused_by_the_first_that_differs(run, sample, tmp_path, capsys):
    classes = ["ground", *read_manifest(sample / "train").classes[1:]]
    classes[2] = "unicorn"
    other = repack(sample / "train", tmp_path / "other", variant, classes=tuple(classes))
    capsys.readouterr()
    assert infer(run, other, "--out", tmp_path / "out") == 2
    line = message(capsys)
    assert "classes are not those that" in line and ("0 is ground" in line or "2 is unicorn" in line)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["stream.batch=3"], "stream.batch cannot change"),
        (["cam.steps=3"], "cam.steps cannot change"),
        (["cam.foreground=0"], "cam.foreground on the command line (got 0); expected a number above 0"),
        (["cam.forground=0.5"], "did you mean cam.foreground?"),
    ],
)
def test_what_cannot_change_is_named(run, tagged, tmp_path, capsys, given, names):
    assert infer(run, tagged, "--out", tmp_path / "out", *given) == 2
    assert names in message(capsys)


def test_bad_places_are_named(run, tagged, tmp_path, capsys):
    assert infer(tmp_path / "absent", tagged, "--out", tmp_path / "out") == 2
    assert "absent: no such run folder" in message(capsys)
    assert infer(run, tagged, "--out", tagged) == 2
    assert "the pack that is read" in message(capsys)
    assert infer(run, tmp_path, "--out", tmp_path / "out") == 2
    assert "manifest.json: no such file" in message(capsys)


def test_a_pack_that_has_seeds_is_refused(run, seeds, tmp_path, capsys):
    assert infer(run, seeds, "--out", tmp_path / "out") == 2
    assert "seeds: has seeds of CAM already; label the pack that it was made from" in message(capsys)
    assert not (tmp_path / "out").exists()


def test_maps_of_mirrored_images_are_refused_where_classes_change_places(run, tagged, tmp_path, capsys):
    other = shutil.copytree(run, tmp_path / "other")
    config = load(run / "config.yaml", ["stream.mirror_swaps=[[1,2]]", "cam.mirror=false"])
    (other / "config.yaml").write_text(dump(config))
    assert infer(other, tagged, "--out", tmp_path / "out", "cam.mirror=true") == 2
    assert "cam.mirror (got true); stream.mirror_swaps says that classes change places" in message(capsys)
    assert infer(other, tagged, "--out", tmp_path / "out") == 0


def test_a_gpu_that_is_not_there_is_one_line(run, tagged, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert infer(run, tagged, "--out", tmp_path / "out", "engine.device=cuda") == 2
    assert "engine.device (got cuda); PyTorch sees no GPU here" in message(capsys)


def cut_off(monkeypatch, *given: object) -> None:
    """Infer up to where seeds are measured."""

    def fail(*_, **__):
        raise RunError("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(label_quality, "measure", fail)
        assert infer(*given) == 2


def test_what_was_cut_off_while_measuring_only_measures(seeds, run, tagged, tmp_path, monkeypatch):
    out = tmp_path / "out"
    cut_off(monkeypatch, run, tagged, "--out", out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert infer(run, tagged, "--out", out) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.tar")} == before
    assert (out / "seeds.json").read_bytes() == (seeds / "seeds.json").read_bytes()


def test_what_other_settings_have_left_unmeasured_is_made_anew(run, tagged, tmp_path, monkeypatch):
    out = tmp_path / "out"
    cut_off(monkeypatch, run, tagged, "--out", out)
    loose = read_manifest(out).counts.pixels_labelled
    assert infer(run, tagged, "--out", out, "cam.foreground=1", "cam.background=1") == 0
    assert sum(read_manifest(out).counts.pixels_labelled) < sum(loose)


def test_at_an_address_too_measuring_goes_on(run, tagged, tmp_path, monkeypatch, capsys):
    pytest.importorskip("moto")
    (tmp_path / "nothing").mkdir()
    with servers.s3("shards", tmp_path / "nothing") as (bucket, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TMPDIR", str(tmp_path))  # of the cache
        monkeypatch.setattr(tempfile, "tempdir", None)
        out = f"{bucket}/seeds"
        given = (run, tagged, "--out", out)
        cut_off(monkeypatch, *given)
        assert infer(*given) == 0
        assert json.loads(address.read(f"{out}/seeds.json", 1))["images"] == 12
        capsys.readouterr()
        assert infer(*given) == 0, "finished: passed over"
        assert infer(*given, "cam.foreground=0.9") == 2
        assert "holds a pack; choose another --out" in message(capsys)


def test_a_pack_without_any_tag_claims_no_run_folder(experiment, sample, tmp_path, capsys):
    without = repack(sample / "train", tmp_path / "none", lambda _, one: replace(one, tags=None))
    words = experiment(tmp_path / "runs", "tiny", f"data.train={without}")
    capsys.readouterr()
    assert cli.main(["cam", "train", *words, "--alone"]) == 2
    assert "no image is known to show a class" in message(capsys)
    assert not (tmp_path / "runs").exists()
