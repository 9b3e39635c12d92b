"""A classifier on a finished embedding: any number of processes, interrupted or not; nothing else moves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from spml_dist import load_model
from spml_dist.config import load
from spml_dist.data.format.manifest import read_manifest
from spml_dist.data.pack.pack import pack
from spml_dist.data.stream.reader import samples
from spml_dist.errors import ConfigError, DataError, RunError
from spml_dist.inference import whole_image
from spml_dist.model import export
from spml_dist.records import UNLABELLED
from spml_dist.run_folder import RunFolder
from spml_dist.training.claim import claim
from spml_dist.training.classify import classify, stage_experiment
from spml_dist.training.launch import train
from tests.conftest import payload, work
from tests.spawn import spawn

pytestmark = pytest.mark.timeout(600)

BRIEFLY = ["classifier.steps=4", "classifier.batch=4", "classifier.warmup=1", "checkpoint.every=1"]
VARIANTS = {
    "alone": ["engine.precision=float64"],
    "interrupted": ["engine.precision=float64"],
    "two": ["engine.precision=float64"],
    "deepspeed": ["engine.zero_stage=1"],
    "bfloat16": ["engine.zero_stage=2", "engine.precision=bfloat16"],
}


@pytest.fixture(scope="module")
def run(experiment, tmp_path_factory) -> Path:
    """A finished run of two steps."""
    folder = tmp_path_factory.mktemp("runs")
    words = experiment(folder, "run", "schedule.steps=2", "schedule.warmup=1", "tracking.previews=0")
    threads = torch.get_num_threads()
    assert work(0, [payload(words)]) == [{"steps": [0, 1], "error": None}]
    torch.set_num_threads(threads)
    return folder / "run"


def stage_payload(run: Path, name: str, stop_before: int | None = None) -> dict:
    """What `spml-dist classify` hands to every worker."""
    config, _ = stage_experiment(RunFolder(run), None, name, [*BRIEFLY, *VARIANTS[name]])
    claim(RunFolder(run / "stages" / name), config)
    return {"config": config.model_dump(mode="json"), "stop_before": stop_before}


@pytest.fixture(scope="module")
def stages(run: Path) -> Path:
    """Four steps each: one alone, one interrupted before its third step, the others by two workers."""
    threads = torch.get_num_threads()
    runs = [
        stage_payload(run, "alone"),
        stage_payload(run, "interrupted", 2),
        stage_payload(run, "interrupted"),
    ]
    reports = work(0, runs)
    torch.set_num_threads(threads)
    by_two = [stage_payload(run, name) for name in ("two", "deepspeed", "bfloat16")]
    reports += spawn(work, 2, by_two, seconds=400)[1]
    steps = [report["steps"] for report in reports]
    assert steps == [[0, 1, 2, 3], [0, 1], [2, 3], *[[0, 1, 2, 3]] * 3], reports
    return run / "stages"


def logged(stages: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (stages / name / "metrics.jsonl").read_text().splitlines()]


def exported(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "export" / "model.safetensors")


@pytest.mark.parametrize("name", VARIANTS)
def test_backbone_and_embedding_stay_to_the_bit_and_the_classifier_is_another(run, stages, name: str):
    """Statistics of batch norms too; also where the network computes in 16 bits."""
    before, after = exported(run), exported(stages / name)
    assert before.keys() == after.keys()
    same = {key for key in before if torch.equal(before[key], after[key])}
    assert same >= {key for key in before if key.startswith(("backbone.", "head."))}
    assert "classifier.mix.weight" not in same and "classifier.norm.running_mean" not in same


@pytest.mark.parametrize(("name", "tolerance"), [("two", 1e-9), ("deepspeed", 1e-3)])
def test_the_number_of_workers_does_not_matter(stages, name: str, tolerance: float):
    for ours, theirs in zip(logged(stages, name), logged(stages, "alone"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=tolerance)


def test_interrupted_is_uninterrupted_to_the_bit(stages):
    whole, parts = (logged(stages, name) for name in ("alone", "interrupted"))
    assert [entry["loss"] for entry in parts] == [entry["loss"] for entry in whole]
    ours, theirs = exported(stages / "interrupted"), exported(stages / "alone")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_only_the_classifier_has_a_gradient_and_a_momentum(stages):
    for entry in logged(stages, "two"):
        assert entry["gradient/encoder"] == 0 < entry["gradient/classifier"]
        assert {key for key in entry if key.startswith("loss/")} == {"loss/cross_entropy"}
    checkpoint = stages / "two" / "checkpoints" / "step_000004" / "engine" / "momentum.safetensors"
    assert {name.partition(".")[0] for name in load_file(checkpoint)} == {"classifier"}


def test_it_is_used_as_any_other_run(run, stages, sample):
    image = next(samples(sample / "val")).image
    ours, theirs = load_model(stages / "alone"), load_model(run)
    assert (ours.classes, ours.step) == (theirs.classes, 4)
    assert ours(image).shape == image.shape[:2]
    embedded = [whole_image.embed(model.network, image).raw for model in (ours, theirs)]
    assert torch.equal(*embedded)


def relabelled(folder: Path, out: Path, blank: bool = False, **changes) -> Path:
    """The pack with its ground truth as labels, or without any."""
    manifest = read_manifest(folder)
    described = {"split": "train", "labels": "masks", "classes": manifest.classes}
    described |= {"background": manifest.background} | changes
    whole = (
        replace(each, semantic=np.full_like(each.mask, UNLABELLED) if blank else np.array(each.mask))
        for each in samples(folder)
    )
    pack(whole, out, "whole", **described)
    return out


@pytest.fixture(scope="module")
def labels(sample: Path, tmp_path_factory) -> Path:
    return relabelled(sample / "train", tmp_path_factory.mktemp("labels") / "whole")


def test_other_labels_make_another_classifier_that_goes_on_by_the_same_call(run, labels, sample):
    lines: list[str] = []
    given = [*BRIEFLY, "classifier.steps=2", "tracking.previews=0"]
    threads = torch.get_num_threads()
    stage = classify(run, labels, None, given, alone=True, show=lines.append)
    assert classify(run, labels, None, given, alone=True, show=lines.append) == stage == run / "stages" / "s2"
    torch.set_num_threads(threads)
    assert [line for line in lines if line.startswith("already trained to step 2")]
    assert json.loads((stage / "labels.json").read_text())["labels"] == "masks"
    with pytest.raises(RunError, match="was begun on other labels"):
        classify(run, sample / "train", "s2", given, alone=True)


def test_a_project_that_was_moved_goes_on_where_it_is_now(run, stages, labels, sample, tmp_path):
    """Folders and packs are known by what they hold. The stages' paths follow those of the run."""
    shutil.copytree(run, tmp_path / "runs" / "run")
    shutil.copytree(sample, tmp_path / "data")
    folder, lines = tmp_path / "runs" / "run", []
    before = (folder / "config.yaml").read_text()
    places = [f"output={tmp_path / 'runs'}", f"data.val={tmp_path / 'data' / 'val'}"]
    with pytest.raises(RunError, match=r"belongs to another configuration \(got data.train"):
        train(folder / "config.yaml", [*places, f"data.train={labels}"], alone=True)
    assert (folder / "config.yaml").read_text() == before
    train(folder / "config.yaml", [*places, f"data.train={tmp_path / 'data' / 'train'}"], alone=True)
    assert load(folder / "config.yaml").data.train == str(tmp_path / "data" / "train")
    given = [*BRIEFLY, *VARIANTS["alone"]]
    assert (
        classify(folder, None, "alone", given, alone=True, show=lines.append) == folder / "stages" / "alone"
    )
    assert [line for line in lines if line.startswith("already trained to step 4")]


def test_an_embedding_that_was_trained_anew_is_noticed(run, stages, tmp_path):
    other = shutil.copytree(run, tmp_path / "run")
    given = [*BRIEFLY, *VARIANTS["alone"]]
    (other / "stages" / "alone" / "stage.json").write_text(json.dumps({"embedding": "of before"}))
    with pytest.raises(RunError, match=r"stages/alone was begun on another embedding; remove it, or"):
        classify(other, None, "alone", given, alone=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stream.batch=2", "stream.batch cannot change here"),
        ("model.dilations=[1]", "model.dilations cannot change here"),
        ("relations.annotation.weight=2", "relations.annotation.weight cannot change here"),
        ("bank.capacity=999", "bank.capacity cannot change here"),
        ("loss.tagless=reference", "loss.tagless cannot change here"),
        ("labeling.min_confidence=0.5", "labeling.min_confidence cannot change here"),
        ("bank={capacity: 999}", "bank.capacity cannot change here"),
        ("schedule.steps=9", "the section classifier says how it is classified"),
        ("classifier.stepz=9", "did you mean classifier.steps?"),
        ("classifier.scale=[2, 0.5]", "classifier.scale"),
    ],
)
def test_what_would_change_nothing_is_refused(run, override: str, message: str):
    with pytest.raises(ConfigError) as refused:
        classify(run, None, "refused", [override], alone=True)
    assert message in str(refused.value)
    assert not (run / "stages" / "refused").exists()


def test_bad_places_and_names_are_one_line_and_claim_nothing(run, sample, tmp_path):
    with pytest.raises(RunError, match="nowhere: no such run folder"):
        classify(tmp_path / "nowhere", alone=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds no exported model"):
        classify(tmp_path / "empty", alone=True)
    with pytest.raises(ConfigError, match=r"--out \(got ../up\)"):
        classify(run, None, "../up", alone=True)
    other = relabelled(sample / "train", tmp_path / "other", classes=tuple("abcdefghi"))
    with pytest.raises(DataError, match="other: classes are not those that"):
        classify(run, other, "wrong", alone=True)
    blank = relabelled(sample / "train", tmp_path / "blank", blank=True)
    with pytest.raises(DataError, match="blank: no image has a labelled pixel"):
        classify(run, blank, "wrong", alone=True)
    assert not (run / "stages" / "wrong").exists()


def test_another_architecture_than_the_embedding_s_is_named_before_a_step(run, tmp_path):
    from spml_dist.model import embedding, segmenter

    _, info = export.load(run / "export")
    config, _ = stage_experiment(RunFolder(run), None, "s1", [])
    changed = config.model.model_copy(update={"dilations": (1, 2)})
    network = segmenter.build(changed, len(info["classes"]), seed=0)
    with pytest.raises(ConfigError, match=r"model.dilations is not that of model.embedding"):
        embedding.adopt(network, changed)
