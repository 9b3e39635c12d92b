"""What earlier releases wrote stays readable: tests/fixtures/v1 was made by the release that had version 1 of
every format, and is never made anew.

Two runs of 8 steps on six generated scenes, cut back to their checkpoint of step 4: `global` with a bank of
the data set, its inverted file and a momentum encoder, `recent` with the bank of the last two steps; and the
export of a CAM classifier.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from spml_dist import cli
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.stream.reader import samples
from spml_dist.records import UNLABELLED

FIXTURES = Path(__file__).parent / "fixtures" / "v1"
RUNS = ("global", "recent")
LOSSES = ("loss", "loss/image_similarity", "loss/annotation", "loss/cooccurrence", "loss/cross_entropy")


@pytest.fixture
def old(tmp_path) -> Path:
    """The fixtures, which say /v1 where they lie, at a place of their own."""
    place = tmp_path / "v1"
    shutil.copytree(FIXTURES, place)
    for path in place.rglob("config.yaml"):
        path.write_text(path.read_text(encoding="utf-8").replace("/v1/", f"{place}/"), encoding="utf-8")
    return place


def logged(run: Path) -> dict[int, dict]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["step"]: entry for entry in map(json.loads, lines)}


@pytest.mark.parametrize("name", RUNS)
def test_an_old_checkpoint_goes_on_as_its_own_release_did(old, name):
    run = old / "runs" / name
    then = logged(run)
    shutil.rmtree(run / "export")  # it says that all 8 steps were made
    words = [str(run / "config.yaml"), "--alone", f"tracking.uri=sqlite:///{old}/mlflow.db"]
    assert cli.main(["train", *words]) == 0
    now = logged(run)
    assert sorted(now) == sorted(then) == list(range(1, 9))
    assert all((now[step]["timestamp"] == then[step]["timestamp"]) == (step <= 4) for step in now)
    for step in range(1, 9):
        assert [now[step][k] for k in LOSSES] == pytest.approx([then[step][k] for k in LOSSES], rel=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_an_old_export_is_evaluated_as_its_own_release_did(old, name):
    run = old / "runs" / name
    then = json.loads((run / "result.json").read_text(encoding="utf-8"))
    (run / "result.json").unlink()
    assert cli.main(["evaluate", str(run), "--split", "val"]) == 0
    now = json.loads((run / "result.json").read_text(encoding="utf-8"))
    for readout in ("classifier", "neighbours"):
        assert now["readouts"][readout]["miou"] == pytest.approx(then["readouts"][readout]["miou"], abs=0.01)


def test_an_old_bank_is_inspected(old, capsys):
    assert cli.main(["bank", "inspect", str(old / "runs" / "global")]) == 0
    assert "rows" in capsys.readouterr().out


def test_an_old_cam_export_labels_an_old_pack(old, capsys):
    words = [str(old / "runs" / "global_cam"), str(old / "pack" / "train"), "--out", str(old / "seeds")]
    assert cli.main(["cam", "infer", *words]) == 0
    assert cli.main(["verify", str(old / "seeds")]) == 0


def test_an_old_pack_is_verified(old):
    assert cli.main(["verify", str(old / "pack" / "train")]) == 0


def test_an_old_pack_with_confidence_is_read_as_it_was_written():
    """tests/fixtures/v3: the scenes of val as `label` wrote them in the first release with confidence.png."""
    pack = FIXTURES.parent / "v3" / "labelled"
    assert cli.main(["verify", str(pack)]) == 0
    labelled = list(samples(str(pack)))
    note = json.loads((pack / "labeling.json").read_text(encoding="utf-8"))
    assert len(labelled) == note["images"] == read_manifest(pack).samples
    for sample in labelled:
        assert sample.confidence is not None and sample.confidence.shape == sample.semantic.shape
        assert ((sample.confidence == 0) == (sample.semantic == UNLABELLED)).all()
        assert (sample.confidence == 255).any() and (
            (sample.confidence > 0) & (sample.confidence < 255)
        ).any()
