"""`spml-dist evaluate` on the folder of a finished run."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import cv2
import pytest
import torch

from spml_dist.cli import evaluate as verb
from spml_dist.config import dump, load
from spml_dist.errors import ConfigError, RunError
from spml_dist.inference.evaluate_run import evaluate
from spml_dist.inference.result_table import markdown
from spml_dist.model import export
from spml_dist.model.segmenter import build
from tests.inference.conftest import CLASSES, stripes

CONFIG = Path(__file__).parents[1] / "small.yaml"


@pytest.fixture
def finished(tmp_path, packed):
    """A run folder as training leaves it; the network has learnt nothing."""
    train, val = packed("train", map(stripes, range(2))), packed("val", map(stripes, range(3)))
    config = load(CONFIG, ["name=toy", f"data.train={train}", f"data.val={val}", "evaluation.grid=[3, 3]"])
    folder = tmp_path / "toy"
    model = build(config.model, len(CLASSES), seed=0)
    export.save(model.state_dict(), folder / "export", config.model, list(CLASSES), None, 40)
    (folder / "config.yaml").write_text(dump(config))
    return folder


def run(*words) -> int:
    parser = argparse.ArgumentParser()
    verb.add(parser.add_subparsers())
    arguments = parser.parse_args(["evaluate", *map(str, words)])
    return arguments.run(arguments)


def test_the_run_folder_gets_result_table_images_and_report(finished, tmp_path, capsys):
    assert run(finished, "--json", tmp_path / "copy.json", "--pictures", 2) == 0
    printed = capsys.readouterr().out
    result = json.loads((finished / "result.json").read_text())
    assert result == json.loads((tmp_path / "copy.json").read_text())
    assert (result["run"], result["split"], result["images"], result["seed"], result["step"]) == (
        "toy",
        "val",
        3,
        235,
        40,
    )
    assert f"{100 * result['miou']:.1f}" in printed
    assert "| classifier | neighbours |" in printed
    assert (finished / "result.md").read_text() in printed
    assert result["train_labels"] and f"pack: {result['pack']}" in printed
    page = (finished / "report.html").read_text()
    assert f"images of {result['pack']}." in page
    assert f"training prototypes labelled by {', '.join(result['train_labels'])}." in page
    for name in ("pictures/val.png", "pictures/confusion_val.png"):
        assert cv2.imread(str(finished / name)) is not None
        assert str(finished / name) in printed
    assert "Result on val" in (finished / "report.html").read_text()
    assert not list(finished.rglob("*.tmp"))


def test_from_python_it_is_the_same(finished, synced, caplog):
    result = evaluate(finished, split="train", pictures=0)
    assert result == json.loads((finished / "result_train.json").read_text())
    assert (finished / "result_train.md").exists() and not caplog.messages


def test_a_number_of_pictures_is_no_less_than_none(finished, capsys):
    with pytest.raises(SystemExit):
        run(finished, "--pictures", -1)
    assert "at least 0" in capsys.readouterr().err


def test_another_split_and_the_oracle_have_files_of_their_own(finished, capsys):
    run(finished, "--split", "train", "--oracle", "--pictures", 0)
    result = json.loads((finished / "result_train_oracle.json").read_text())
    assert result["oracle"] is True
    assert "| classifier | neighbours (oracle) |" in capsys.readouterr().out
    assert not (finished / "result.json").exists()
    assert not (finished / "pictures" / "train_oracle.png").exists()


@pytest.fixture
def synced(monkeypatch):
    """What MLflow would be sent; it takes everything."""
    calls = []
    monkeypatch.setattr("spml_dist.tracking.mlflow_sync.sync", lambda *given: calls.append(given))
    return calls


def test_mlflow_is_brought_up_to_date_once_all_files_are_there(finished, synced):
    (finished / "mlflow.json").write_text('{"uri": "sqlite:///x.db", "run_id": "17"}')
    run(finished, "--pictures", 1)
    ((folder, uri, experiment, name, params),) = synced
    assert (folder, uri, experiment, name) == (finished, "sqlite:///x.db", "spml", "toy")
    assert params["stream.batch"] == 8


def test_a_run_that_mlflow_does_not_know_stays_unknown(finished, synced):
    run(finished, "--pictures", 0)
    assert synced == []


def test_mlflow_out_of_reach_is_one_line_and_no_failure(finished, monkeypatch, capsys):
    monkeypatch.setattr("spml_dist.tracking.mlflow_sync.sync", lambda *_: "nobody there")
    (finished / "mlflow.json").write_text('{"uri": "http://nowhere", "run_id": "17"}')
    assert run(finished, "--pictures", 0) == 0
    assert capsys.readouterr().err.endswith("nobody there\n")


def test_what_is_missing_is_named_with_the_remedy(finished, tmp_path):
    with pytest.raises(RunError, match=r"absent: no such run folder; .*spml-dist train"):
        run(tmp_path / "absent")
    with pytest.raises(
        RunError, match=r"config.yaml: data.test is null; write the path.*--split \(val, train\)"
    ):
        run(finished, "--split", "test")
    (finished / "export").rename(finished / "elsewhere")
    with pytest.raises(RunError, match=r"export: no trained model yet; .*resumes"):
        run(finished)


def test_a_gpu_that_is_not_there_is_named(finished, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = load(finished / "config.yaml", ["engine.device=cuda"])
    (finished / "config.yaml").write_text(dump(config))
    with pytest.raises(ConfigError, match=r"engine\.device \(got cuda\)"):
        run(finished)


def test_the_mean_of_the_classes_that_a_split_shows_stands_beside_that_of_all():
    iou = {"sky": 0.5, "sea": 0.3, "sand": 0.0}
    readouts = {"classifier": {"iou": iou, "miou": 0.8 / 3, "pixel_accuracy": 0.9}}
    result = {"run": "toy", "split": "val", "images": 3, "classes": list(iou), "readouts": readouts}
    rows = {
        line.split("|")[1].strip(): line.split("|")[2].strip()
        for line in markdown(result | {"classes_present": ["sky", "sea"]}).splitlines()
        if line.startswith("|")
    }
    assert rows["sand (not shown)"] == "0.0"
    assert (rows["mean IoU"], rows["mean of shown classes"]) == ("26.7", "40.0")
    assert "mean of shown classes" not in markdown(result | {"classes_present": list(iou)})


def test_other_views_have_files_of_their_own_and_overrides_their_say(finished, tmp_path, capsys):
    shutil.rmtree(tmp_path / "train")  # a classifier asks no training set
    words = ["--scales", "0.5,1", "--mirror", "--readouts", "classifier", "--pictures", 2]
    assert run(finished, *words) == 0
    name = "val_classifier_scales_mirror"
    result = json.loads((finished / f"result_{name}.json").read_text())
    assert (result["scales"], result["mirror"], list(result["readouts"])) == (
        [0.5, 1.0],
        True,
        ["classifier"],
    )
    assert "on val, classifier, scales, mirror" in capsys.readouterr().out
    for sheet in (name, f"extremes_{name}", f"confusion_{name}"):
        assert cv2.imread(str(finished / "pictures" / f"{sheet}.png")) is not None
    page = (finished / "report.html").read_text()
    assert "Result on val, classifier, scales, mirror" in page and "Best and worst images" in page
    assert not (finished / "result.json").exists()


def test_numbers_do_not_stand_beside_pictures_of_an_evaluation_before(finished):
    """A result says by which settings it was made, and has no pictures but its own."""
    evaluate(finished, pictures=2)
    assert len(list((finished / "pictures").iterdir())) == 3
    result = evaluate(finished, pictures=0, overrides=["evaluation.grid=[4, 4]"])
    assert result["settings"]["grid"] == [4, 4]
    assert [path.name for path in (finished / "pictures").iterdir()] == ["confusion_val.png"]


def test_neighbours_alone_have_no_windows(finished):
    with pytest.raises(ConfigError, match=r"window .*neighbours see the image whole"):
        evaluate(finished, readouts=["neighbours"], window=32)
    assert not list(finished.glob("result*"))


def test_the_network_of_a_run_cannot_change(finished):
    with pytest.raises(RunError, match=r"data.val is null"):
        evaluate(finished, overrides=["data.val=null"])
    with pytest.raises(ConfigError, match=r"model.head cannot change; the run is trained"):
        evaluate(finished, overrides=["model.head=pspnet"])
