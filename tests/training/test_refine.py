"""From a run to its final classifier: which stages there are, each made once, and what they came to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spml_dist.config import load
from spml_dist.config.cam import cam_experiment
from spml_dist.data.format.manifest import Manifest, read_manifest
from spml_dist.data.pack.pack import pack
from spml_dist.data.stream.reader import samples
from spml_dist.errors import ConfigError, RunError
from spml_dist.inference import metrics
from spml_dist.inference.evaluate_run import evaluate
from spml_dist.records import UNLABELLED, Sample
from spml_dist.training.absolute_paths import absolute
from spml_dist.training.claim import claim
from spml_dist.training.launch import folder_of
from spml_dist.training.refine import procedure, refine, table
from tests.conftest import payload, work

pytestmark = pytest.mark.timeout(600)

BRIEFLY = [
    *("classifier.steps=2", "classifier.batch=4", "tracking.previews=0"),
    *("labeling.scales=[1]", "labeling.index_scales=[1]", "labeling.mirror=false", "labeling.neighbours=3"),
]
STAGES = ["cam-walk", "neighbours-1", "s1", "scores", "walk", "neighbours-2", "s2"]


def names(manifest: Manifest) -> list[str]:
    return [
        name
        for each in procedure(manifest)
        for name in (*(labels.name for labels in each.labels), each.classifier)
    ]


@pytest.mark.parametrize(
    ("kinds", "unlabelled", "expected"),
    [
        ({"scribbles": 5}, 0, ["s1", "walk", "s2"]),
        ({"boxes": 5, "cam": 5}, 0, ["s1", "walk", "s2"]),
        ({"scribbles": 5, "tags": 5}, 0, ["s1", "walk", "s2"]),
        ({"tags": 5}, 5, ["cam-walk", "neighbours-1", "s1", "scores", "neighbours-2", "s2"]),
        ({"tags": 5, "cam": 5}, 0, ["cam-walk", "neighbours-1", "s1", "scores", "neighbours-2", "s2"]),
        ({"points": 2, "tags": 5}, 3, STAGES),
        ({"boxes": 5, "tags": 5, "cam": 5}, 0, ["s1", "walk", "s2"]),
        ({}, 0, ["s1", "walk", "s2"]),
    ],
)
def test_the_stages_are_those_of_the_labels(sample, kinds, unlabelled: int, expected: list[str]):
    """Of pixels and boxes algorithm 1, of tags alone algorithm 2, of a pack of version 1 the first."""
    manifest = read_manifest(sample / "train")
    counts = replace(manifest.counts, kinds=kinds, images_unlabelled=unlabelled)
    assert names(replace(manifest, counts=counts, samples=5)) == expected


def test_each_image_takes_part_in_the_stages_of_its_own_labels(mixed):
    first, second = procedure(read_manifest(mixed))
    labelers = [(stage.annotated, stage.tagged) for stage in (*first.labels, *second.labels)]
    assert labelers[:2] == [(None, "cam-walk"), (None, "neighbours")]
    assert labelers[2:] == [(None, "walk"), ("walk", None), (None, "neighbours")]


@pytest.fixture(scope="module")
def mixed(sample: Path, tmp_path_factory) -> Path:
    """Every other image has tags alone, the others are annotated with lines."""

    def variant(number: int, image: Sample) -> Sample:
        if number % 2:
            return replace(image, semantic=np.full_like(image.semantic, UNLABELLED), kinds=("tags",))
        return replace(image, kinds=("scribbles",))

    manifest, out = read_manifest(sample / "train"), tmp_path_factory.mktemp("mixed") / "pack"
    described = {"split": "train", "labels": "scribbles,tags", "classes": manifest.classes}
    described |= {"background": manifest.background, "shard_size": 6}
    images = (variant(number, image) for number, image in enumerate(samples(sample / "train")))
    pack(images, out, "mixed", **described)
    return out


@pytest.fixture(scope="module")
def run(experiment: Callable[..., list[str]], mixed: Path, tmp_path_factory) -> Path:
    """A finished run of two steps, and beside it one of activation maps."""
    folder = tmp_path_factory.mktemp("runs")
    briefly = [
        "schedule.steps=2",
        "schedule.warmup=1",
        "cam.steps=2",
        "cam.scales=[1]",
        "tracking.previews=0",
    ]
    words = experiment(folder, "run", f"data.train={mixed}", *briefly)
    maps = absolute(cam_experiment(load(words[0], words[1:])), Path.cwd())
    claim(folder_of(maps), maps)
    threads = torch.get_num_threads()
    payloads = [
        payload(words),
        {"config": maps.model_dump(mode="json"), "network": "cam", "stop_before": None},
    ]
    assert work(0, payloads) == [{"steps": [0, 1], "error": None}] * 2
    torch.set_num_threads(threads)
    return folder / "run"


@pytest.fixture(scope="module")
def refined(run: Path) -> dict:
    threads = torch.get_num_threads()
    result = refine(run, BRIEFLY, alone=True)
    torch.set_num_threads(threads)
    return result


def test_every_stage_is_made_and_measured(refined, run: Path, mixed: Path):
    assert [path.name for path in sorted((run / "stages").iterdir())] == sorted(STAGES)
    readouts = [(each["stage"], each["readout"]) for each in refined["stages"]]
    both = "classifier", "neighbours"
    assert readouts == [
        *(("embedding", readout) for readout in both),
        *((name, "labels") for name in ("cam-walk", "neighbours-1")),
        *(("s1", readout) for readout in both),
        *((name, "labels") for name in ("scores", "walk", "neighbours-2")),
        *(("s2", readout) for readout in both),
    ]
    assert {(each["split"], each["images"]) for each in refined["stages"] if each["readout"] in both} == {
        ("val", 4)
    }
    assert json.loads((run / "refinement.json").read_text()) == refined
    for each in refined["stages"]:
        assert (each["readout"] == "labels") == (each.get("boundary_miou") is None), each["stage"]
    assert (run / "refinement.md").read_text().count("\n") == len(readouts) + 3
    assert "cam-walk, labels" in table(refined)


def test_what_people_annotated_stays_and_classifiers_learn_from_the_last_labels(
    refined, run: Path, mixed: Path
):
    weak = {image.key: image for image in samples(mixed)}
    for name in ("neighbours-1", "neighbours-2"):
        for image in samples(run / "stages" / name):
            before = weak[image.key]
            drawn = before.semantic != UNLABELLED
            np.testing.assert_array_equal(image.semantic[drawn], before.semantic[drawn])
            # In the first round those that have lines wait for the walk.
            waits = "scribbles" in before.kinds and name == "neighbours-1"
            assert not waits or (image.semantic == before.semantic).all()
    sources = [load(run / "stages" / name / "config.yaml").data.train for name in ("s1", "s2")]
    assert sources == [str(run / "stages" / name) for name in ("neighbours-1", "neighbours-2")]


def test_precision_and_recall_are_those_of_the_labelled_images_pixels(refined, run: Path):
    walked = next(each for each in refined["stages"] if each["stage"] == "walk")
    classes = refined["classes"]
    labelled = [image for image in samples(run / "stages" / "walk") if "walk" in image.kinds]
    assert walked["images"] == len(labelled) and walked["split"] == "train"
    counts = sum(metrics.confusion(image.mask, image.semantic, len(classes)) for image in labelled)
    for label, name in enumerate(classes):
        if counts[label].sum():
            recall = counts[label, label] / counts[label].sum()
            assert walked["classes"][name]["recall"] == pytest.approx(recall)


def test_once_more_passes_over_everything(refined, run: Path):
    before = {path: path.stat().st_mtime_ns for path in (run / "stages").rglob("*.tar")}
    before |= {path: path.stat().st_mtime_ns for path in (run / "stages").glob("s?/export/*")}
    lines: list[str] = []
    assert refine(run, BRIEFLY, alone=True, show=lines.append) == refined
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert len([line for line in lines if line.startswith("already trained to step 2")]) == 2


def test_every_network_is_measured_on_the_same_images_by_the_same_settings(refined, run: Path, sample: Path):
    """Whatever was asked of some of them before: numbers of one table can be compared."""
    evaluate(run, "val", overrides=["evaluation.neighbours=1"], pictures=0)
    again = refine(run, BRIEFLY, alone=True)
    assert again == refined, "an evaluation by other settings is none of this table's"
    on_train = refine(run, [*BRIEFLY, f"data.val={sample / 'train'}"], alone=True)
    measured = [each for each in on_train["stages"] if each["readout"] != "labels"]
    assert {each["images"] for each in measured} == {read_manifest(sample / "train").samples}
    assert refine(run, BRIEFLY, alone=True) == refined


def test_the_report_shows_what_each_stage_gained(refined, run: Path):
    page = (run / "report.html").read_text()
    assert "What each stage came to" in page and "recall, neighbours-2" in page


@pytest.mark.parametrize("override", ["stream.batch=6", "schedule.steps=9", "data.train=elsewhere"])
def test_what_a_later_stage_would_refuse_is_refused_at_once(
    refined, run: Path, monkeypatch, tmp_path, override: str
):
    monkeypatch.setattr("spml_dist.training.refine.evaluate", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"{override.partition('=')[0]} cannot change here"):
        refine(run, [*BRIEFLY, "evaluation.neighbours=3", override], alone=True)


def test_torchruns_processes_would_all_label(run: Path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(RunError, match="refine under torchrun: every process would label; start it once"):
        refine(run, BRIEFLY)


def test_tags_without_activation_maps_are_one_line(run: Path, tmp_path):
    with pytest.raises(
        RunError, match=r"elsewhere: no run of activation maps, which images with tags alone need"
    ):
        refine(run, BRIEFLY, cam=tmp_path / "elsewhere", alone=True)
