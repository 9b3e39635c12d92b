"""A training run as its two workers see it: without Ray, with DeepSpeed over gloo."""

from __future__ import annotations

import json
import math
import shutil
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spml_dist import cli
from spml_dist.config import load
from spml_dist.model import export
from spml_dist.model.segmenter import build
from spml_dist.records import Batch
from spml_dist.training.task import dropout_seeds
from tests.conftest import SMALL, payload, work
from tests.spawn import spawn

pytestmark = pytest.mark.timeout(600)

NO_RELATIONS = [f"relations.{name}.weight=0.0" for name in ("image_similarity", "annotation", "cooccurrence")]
VARIANTS = {
    "plain": [],
    "recent": ["bank.candidates=recent", "bank.steps=2"],
    "zero1": ["engine.zero_stage=1"],
    "zero2": ["engine.zero_stage=2"],
    "zero3": ["engine.zero_stage=3"],
    "adamw": ["engine.zero_stage=3", "optimizer.kind=adamw", "optimizer.lr=0.001"],
    "ragged": ["stream.batch=6", "engine.accumulation=2", "tracking.every=4", "checkpoint.every=9"],
    "bfloat16": ["engine.precision=bfloat16", "engine.zero_stage=1"],
    "per_rank": ["loss.reduction=per_rank"],
    "cross_entropy": [*NO_RELATIONS, "model.classifier_detached=false", "optimizer.weight_decay=0.0"],
    "unlabelled": ["stream.crop=96", "tracking.previews=0"],
    "skipping": ["stream.skip_corrupt=0.5", "tracking.previews=0"],
    "diverging": ["optimizer.lr=1e30", "schedule.warmup=0"],
}
TERMS = ("image_similarity", "annotation", "cooccurrence", "cross_entropy")


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory) -> Path:
    """Images smaller than the crop that nobody annotated, packed."""
    root = tmp_path_factory.mktemp("unlabelled")
    for folder in ("images", "weak/scribbles"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("0 ground\n1 cat\n")
    (root / "meta.json").write_text(json.dumps({"background": 0}))
    (root / "train.txt").write_text("\n".join("abcdef") + "\n")
    for seed, name in enumerate("abcdef"):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{name}.jpg")
    words = ["--labels", "scribbles", "--split", "train", "--out", str(root / "packed")]
    assert cli.main(["pack", "folder", str(root), *words]) == 0
    return root / "packed"


@pytest.fixture(scope="module")
def damaged(sample: Path, tmp_path_factory) -> Path:
    """The training shards, with one image that does not decode."""
    folder = shutil.copytree(sample / "train", tmp_path_factory.mktemp("damaged") / "packed")
    path = sorted(folder.glob("*.tar"))[0]
    with tarfile.open(path) as tar:
        image = next(member for member in tar if member.name.endswith(".jpg"))
    with path.open("r+b") as file:
        file.seek(image.offset_data)
        file.write(bytes(image.size))
    return folder


@pytest.fixture(scope="module")
def outcome(experiment, output: Path, unlabelled: Path, damaged: Path) -> dict[str, list[dict]]:
    """What every rank returns of every variant; all of them were trained by the same two processes."""
    words = {name: experiment(output, name, *overrides) for name, overrides in VARIANTS.items()}
    words["unlabelled"].append(f"data.train={unlabelled}")
    words["skipping"].append(f"data.train={damaged}")
    ranks = spawn(work, 2, [payload(each) for each in words.values()], seconds=500)
    return {name: [rank[number] for rank in ranks] for number, name in enumerate(words)}


@pytest.fixture
def metrics(outcome, output: Path):
    def of(name: str) -> list[dict]:
        return [json.loads(line) for line in (output / name / "metrics.jsonl").read_text().splitlines()]

    return of


FINISHED = [name for name in VARIANTS if name != "diverging"]


@pytest.mark.parametrize("name", FINISHED)
def test_both_ranks_make_every_step_and_the_loss_stays_finite(outcome, metrics, name: str):
    assert outcome[name] == [{"steps": [0, 1, 2, 3, 4, 5], "error": None}] * 2
    assert all(math.isfinite(entry["loss"]) for entry in metrics(name))


def test_a_logged_step_is_one_object_with_everything_in_it(metrics):
    entries = metrics("plain")
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5, 6]
    expected = {"step", "loss", "lr", "images_per_s", "memory_mb", "eta_s", "candidates", "bank/rows"}
    expected |= {"pixels", "pixels_without_positive", *(f"loss/{term}" for term in TERMS)}
    expected |= {f"without_positive/{term}" for term in TERMS[:3]}
    expected |= {"timestamp", "workers", "gradient/encoder", "gradient/classifier"}
    expected |= {"clipped/encoder", "clipped/classifier"}
    phases = {"data", "forward", "loss", "backward", "optimizer", "bank"}
    expected |= {f"time/{phase}" for phase in phases}
    for entry in entries:
        assert expected <= set(entry) and entry["workers"] == 2
        others = {key for key in set(entry) - expected if not key.startswith("bank/")}
        assert others <= {"time/preview", "time/logging", "time/checkpoint"}
        parts = (0.1, 1.0, 0.5, 1.0)
        total = sum(part * entry[f"loss/{term}"] for part, term in zip(parts, TERMS, strict=True))
        assert entry["loss"] == pytest.approx(total)


def test_the_bank_fills_from_empty_and_gives_candidates(metrics):
    """Twelve images in batches of four: what a step adds is what the bank grows by, for three steps."""
    entries = metrics("plain")
    assert entries[0]["candidates"] == entries[0]["bank/rows"] > 0
    for before, entry in pairwise(entries[:3]):
        own = entry["bank/rows"] - before["bank/rows"]
        assert 0 < own < entry["candidates"]


def test_the_bank_says_how_it_does(metrics):
    last = metrics("plain")[-1]
    assert 0 < last["bank/age_mean"] < 3 and last["bank/age_share/below_10"] == 1
    assert -1 <= last["bank/drift_cosine"] < 1
    assert 0 <= last["bank/purity"] <= 1
    for relation in ("annotation", "cooccurrence"):
        step, recent, bank = (last[f"bank/coverage_{relation}/{n}"] for n in ("step", "recent", "bank"))
        assert 0 <= step <= recent <= bank <= 1


def test_the_last_steps_alone_are_the_paper_s_bank(metrics):
    entries = metrics("recent")
    assert entries[0]["candidates"] == entries[0]["bank/rows"] > 0
    for before, entry in pairwise(entries):
        assert entry["candidates"] > before["bank/rows"]


def test_first_last_checkpointed_and_every_nth_step_are_logged(metrics):
    assert [entry["step"] for entry in metrics("ragged")] == [1, 4, 6]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_the_workers_split_among_themselves_changes_nothing(metrics, stage: int):
    losses = [entry["loss"] for entry in metrics(f"zero{stage}")]
    assert losses == pytest.approx([entry["loss"] for entry in metrics("plain")], rel=1e-4)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_export_is_whole_whatever_was_split(outcome, output: Path, stage: int):
    plain, other = (export.load(output / name / "export")[0] for name in ("plain", f"zero{stage}"))
    for (name, here), there in zip(plain.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4, msg=name)


def test_bfloat16_stays_near_float32(metrics):
    losses = [entry["loss"] for entry in metrics("bfloat16")]
    assert losses == pytest.approx([entry["loss"] for entry in metrics("plain")], rel=0.03)
    assert losses != [entry["loss"] for entry in metrics("plain")]


def test_a_reduction_of_its_own_for_every_rank_is_another_loss(metrics):
    one, other = (metrics(name)[0] for name in ("plain", "per_rank"))
    assert one["pixels"] == other["pixels"]
    assert one["loss/annotation"] != pytest.approx(other["loss/annotation"], rel=1e-3)


def test_plain_cross_entropy_trains_the_backbone(metrics, output: Path):
    entries = metrics("cross_entropy")
    assert {key for key in entries[0] if key.startswith("loss/")} == {"loss/cross_entropy"}
    assert (entries[0]["candidates"], entries[0]["bank/rows"]) == (0, 0)
    trained, info = export.load(output / "cross_entropy" / "export")
    words = [f"model.{key}={json.dumps(value)}" for key, value in info["model"].items()]
    fresh = build(load(SMALL, words).model, len(info["classes"]), seed=235)
    first = next(trained.backbone.parameters()), next(fresh.backbone.parameters())
    assert not torch.equal(*first)


def test_a_whole_batch_without_labels_costs_nothing(metrics):
    for entry in metrics("unlabelled"):
        for term in TERMS[1:]:
            assert entry[f"loss/{term}"] == 0
        assert entry["loss/image_similarity"] > 0


def test_an_image_that_does_not_decode_is_counted_over_all_ranks_where_it_may_be_skipped(metrics):
    """Twelve images in batches of four: it is met once every three steps."""
    assert [entry["stream/skipped"] for entry in metrics("skipping")][2::3] == [1, 2]
    assert "stream/skipped" not in metrics("plain")[0]


def test_a_loss_that_is_not_finite_stops_every_rank_and_never_becomes_a_checkpoint(outcome, output: Path):
    ours, theirs = outcome["diverging"]
    assert ours == theirs
    assert "is not finite" in ours["error"] and "lower optimizer.lr" in ours["error"]
    assert not (output / "diverging" / "export").exists()
    steps = [path.name for path in (output / "diverging" / "checkpoints").glob("step_*")]
    assert max(steps, default="") < f"step_{len(ours['steps']):06d}"


def test_the_run_folder_holds_what_is_documented(outcome, output: Path):
    folder = output / "plain"
    assert {path.name for path in folder.iterdir()} == {
        *("config.yaml", "labels.json", "metrics.jsonl", "train.log", "mlflow.json"),
        *("checkpoints", "previews", "export", "system", "logs"),
    }
    assert {path.name for path in (folder / "previews").iterdir()} == {"step_000003.png", "step_000006.png"}
    assert not list(folder.rglob("*.tmp"))


def test_the_exported_network_knows_its_classes_and_its_step_and_predicts(outcome, output: Path):
    network, info = export.load(output / "plain" / "export")
    assert info["step"] == 6
    assert (len(info["classes"]), info["background"]) == (9, 0)
    with torch.no_grad():
        raw, scores = network(torch.rand(1, 3, 64, 64))
    assert scores.shape == (1, 9, *raw.shape[2:])
    assert scores.isfinite().all()


def test_dropout_draws_from_seed_epoch_and_key_alone():
    def seeds(seed: int, epoch: int, *keys: str) -> list[int]:
        fields = dict.fromkeys(("position", "image", "semantic", "regions", "tags", "tags_known", "window"))
        return dropout_seeds(seed, Batch(keys=keys, epoch=epoch, **fields))

    assert seeds(1, 0, "a", "b") == [*seeds(1, 0, "a"), *seeds(1, 0, "b")]
    assert len({*seeds(1, 0, "a", "b"), *seeds(2, 0, "a"), *seeds(1, 1, "a")}) == 4
